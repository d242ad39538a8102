//go:build unix && !linux

package postgres_test

const endsWithParent = false
