package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzArguments: whatever the arguments of a command are, it ends with a documented code and without a panic, and says what is
// wrong in printable text. No database is given, so that none of them gets further than that.
func FuzzArguments(f *testing.F) {
	for _, seed := range []string{
		"jobs\x00ls\x00--status\x00done", "jobs\x00ls\x00--limit\x00-1", "jobs\x00show\x00x", "jobs\x00retry\x000198a5c4-7e1b-4c7a-9d62-3f1e5b6a7c8d\x00'", "jobs\x00cancel\x00\x1b[31m",
		"enqueue\x00t\x00{\x00--delay\x001e9w", "enqueue\x00\xff\x00-", "enqueue\x00t\x00\"\\u0000\"\x00--count\x0099999999999", "enqueue\x00t\x00--metadata\x00[", "enqueue\x00t\x00--timeout\x000",
		"jobs\x00ls\x00--json=maybe", "--log-level\x00\u202e", "--schema\x00a\"b\x00jobs\x00ls", "jobs\x00\u202e", "help\x00x", "--config\x00/dev/null/x\x00config\x00check",
	} {
		f.Add(seed, "{}")
		f.Add(seed, "\xff")
	}
	f.Fuzz(func(t *testing.T, line, stdin string) {
		args := strings.Split(line, "\x00")
		for _, arg := range args {
			// These would read files, run until they are stopped, or start a server of their own.
			if arg == "demo" || arg == "run" || strings.HasPrefix(arg, "--config") || strings.HasPrefix(arg, "--database-url") || strings.HasPrefix(arg, "__complete") {
				t.Skip()
			}
		}
		var stdout, stderr bytes.Buffer
		code := execute(args, strings.NewReader(stdin), &stdout, &stderr, nil)
		if code < exitOK || code > 8 {
			t.Fatalf("%q ends with %d", args, code)
		}
		if code != exitOK && !strings.Contains(stderr.String(), "error: ") {
			t.Fatalf("%q ends with %d and says %q", args, code, stderr.String())
		}
		if !utf8.Valid(stderr.Bytes()) || bytes.ContainsFunc(stderr.Bytes(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Fatalf("%q prints %q", args, stderr.String())
		}
	})
}

// FuzzOrder: what enqueue takes, it takes as JSON and text that Postgres can hold, but for what only Postgres knows.
func FuzzOrder(f *testing.F) {
	for _, seed := range []string{"", "-", "{}", "\"\\u0000\"", "{\"a\":1}x", " null ", "\xff", strings.Repeat("[", 20_000)} {
		f.Add("t", seed, "{}", "", 1)
		f.Add("\x00\xff", "-", seed, "k", 2)
	}
	f.Fuzz(func(t *testing.T, kind, payload, metadata, key string, count int) {
		o := order{kind: kind, payload: payload, metadata: metadata, uniqueKey: key, count: count, maxAttempts: 1}
		if err := o.complete(strings.NewReader(payload)); err != nil {
			if err.Error() == "" {
				t.Fatal("an error says nothing")
			}
			return
		}
		if !json.Valid([]byte(o.payload)) || o.metadata != "" && !json.Valid([]byte(o.metadata)) || o.count < 1 || o.count > maxCount || !utf8.ValidString(o.kind) {
			t.Fatalf("taken: %+v", o)
		}
	})
}
