package postgres_test

const endsWithParent = true
