package dispatch

import (
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"
)

func TestTextsOfUUIDs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) pgtype.UUID {
			return pgtype.UUID{Bytes: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name)), Valid: true}
		}
		a, b := draw("a"), draw("b")
		if first, second := texts(a, b); first != a.String() || second != b.String() {
			t.Fatalf("%s, %s, want %s, %s", first, second, a, b)
		}
	})
}
