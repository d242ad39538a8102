package config

import (
	"strings"
)

// nearest returns the name that was likely meant by what was typed, or "".
func nearest(typed string, names []string) string {
	if len(typed) > 64 {
		return ""
	}
	best, fewest := "", 1+max(1, len(typed)/3)
	for _, name := range names {
		if n := edits(strings.ToLower(typed), strings.ToLower(name)); n < fewest {
			best, fewest = name, n
		}
	}
	return best
}

// edits counts the insertions, deletions, replacements and swaps of neighbours that make b of a.
func edits(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows[0], rows[1], rows[2] = above, row, before
	}
	return rows[1][len(b)]
}
