package demo

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Signed by another implementation of the specification.
func TestVerifySignature(t *testing.T) {
	t.Parallel()
	secret, now, body := bytes.Repeat([]byte{7}, 32), time.Now(), []byte(`{"type":"send_email"}`)
	signer, err := standardwebhooks.NewWebhook("whsec_" + base64.StdEncoding.EncodeToString(secret))
	if err != nil {
		t.Fatal(err)
	}
	signed := func(at time.Time) http.Header {
		signature, err := signer.Sign("msg_1", at, body)
		if err != nil {
			t.Fatal(err)
		}
		return http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)}, "Webhook-Signature": {"v2,bm8= v1a,eA== " + signature}}
	}
	if err := verifySignature(secret, signed(now), body, now); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for name, test := range map[string]struct {
		secret []byte
		at     time.Time
		change func(http.Header)
		body   []byte
	}{
		"another secret":    {bytes.Repeat([]byte{8}, 32), now, func(http.Header) {}, body},
		"another body":      {secret, now, func(http.Header) {}, []byte("{}")},
		"old":               {secret, now.Add(-6 * time.Minute), func(http.Header) {}, body},
		"from the future":   {secret, now.Add(6 * time.Minute), func(http.Header) {}, body},
		"another id":        {secret, now, func(h http.Header) { h.Set("Webhook-Id", "msg_2") }, body},
		"another timestamp": {secret, now, func(h http.Header) { h.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix()+1, 10)) }, body},
		"no signature":      {secret, now, func(h http.Header) { h.Del("Webhook-Signature") }, body},
		"no timestamp":      {secret, now, func(h http.Header) { h.Del("Webhook-Timestamp") }, body},
	} {
		header := signed(test.at)
		test.change(header)
		if err := verifySignature(test.secret, header, test.body, now); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The script with a real shell, and what comes through the pipe.
func TestScript(t *testing.T) {
	t.Parallel()
	ledger := newLedger()
	app, err := newApplication(t.Context(), t.TempDir()+"/it's", ledger)
	if err == nil {
		t.Fatal("a folder that isn't there was accepted")
	}
	dir := t.TempDir()
	if app, err = newApplication(t.Context(), dir, ledger); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	running := start(func() error { return app.run(ctx) })
	for name, test := range map[string]struct {
		payload, attempt string
		code             int
		stdout           string
	}{
		"as Postgres writes it": {`{"demo": 12, "fails": 1}`, "2", 0, `{"demo": 12, "size": "200x200"}`},
		"without spaces":        {`{"fails":1,"demo":12}`, "2", 0, `{"demo": 12, "size": "200x200"}`},
		"fails":                 {`{"demo": 12, "fails": 1}`, "1", 75, ""},
		"fails for good":        {`{"demo": 12, "permanent": true}`, "1", 65, ""},
		"not permanent":         {`{"demo": 12, "permanent": false}`, "1", 0, `{"demo": 12, "size": "200x200"}`},
		"a stranger's":          {`{"$(touch x)": "; exit 3 '"}`, "1", 0, `{"demo": 0, "size": "200x200"}`},
		"no object":             {`[]`, "1", 0, `{"demo": 0, "size": "200x200"}`},
		"odd numbers":           {`{"demo": -1, "fails": "x"}`, "1", 0, `{"demo": 0, "size": "200x200"}`},
	} {
		command := exec.CommandContext(t.Context(), "/bin/sh", app.script)
		command.Dir = dir
		command.Stdin = strings.NewReader(test.payload)
		command.Env = []string{"PGBELL_JOB_ID=" + strings.ReplaceAll(name, " ", "-"), "PGBELL_ATTEMPT=" + test.attempt}
		stdout, err := command.Output()
		code := 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != test.code || strings.TrimSpace(string(stdout)) != test.stdout {
			t.Errorf("%s: exit %d, stdout %q; want %d, %q", name, code, stdout, test.code, test.stdout)
		}
	}
	stop()
	if err := running.wait(); err != nil {
		t.Error(err)
	}
	// Whatever was said before the end was read.
	if len(ledger.early) != 8 || ledger.early["not-permanent"] == nil {
		t.Errorf("starts seen: %v", ledger.early)
	}
	if s := ledger.summary(); s.UnexpectedCount != 0 {
		t.Errorf("unexpected: %q", s.Unexpected)
	}
}
