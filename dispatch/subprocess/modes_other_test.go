//go:build !linux

package subprocess_test

func systemModes() map[string]func([]string) { return nil }
