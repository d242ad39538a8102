package main

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	const secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	key, err := parseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	oracle, err := webhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	sent, body := time.Unix(1_800_000_000, 0), []byte(`{"type":"x"}`)
	signature, err := oracle.Sign("job-1", sent, body)
	if err != nil {
		t.Fatal(err)
	}
	header := func(change func(http.Header)) http.Header {
		h := http.Header{}
		h.Set("webhook-id", "job-1")
		h.Set("webhook-timestamp", strconv.FormatInt(sent.Unix(), 10))
		h.Set("webhook-signature", signature)
		change(h)
		return h
	}
	keep := func(http.Header) {}
	tests := []struct {
		name   string
		header http.Header
		body   string
		now    time.Time
		good   bool
	}{
		{"signed", header(keep), string(body), sent, true},
		{"a second signature fits", header(func(h http.Header) { h.Set("webhook-signature", "v1,AAAA "+signature) }), string(body), sent, true},
		{"clocks differ a little", header(keep), string(body), sent.Add(-4 * time.Minute), true},
		{"other body", header(keep), `{"type":"y"}`, sent, false},
		{"other id", header(func(h http.Header) { h.Set("webhook-id", "job-2") }), string(body), sent, false},
		{"replayed later", header(keep), string(body), sent.Add(6 * time.Minute), false},
		{"from the future", header(keep), string(body), sent.Add(-6 * time.Minute), false},
		{"no timestamp", header(func(h http.Header) { h.Del("webhook-timestamp") }), string(body), sent, false},
		{"no signature", header(func(h http.Header) { h.Del("webhook-signature") }), string(body), sent, false},
		{"other scheme", header(func(h http.Header) { h.Set("webhook-signature", strings.Replace(signature, "v1,", "v2,", 1)) }), string(body), sent, false},
	}
	for _, test := range tests {
		if err := verify(key, test.header, []byte(test.body), test.now); (err == nil) != test.good {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	for _, wrong := range []string{"", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_***", "whsec_c2hvcnQ="} {
		if _, err := parseSecret(wrong); err == nil {
			t.Errorf("secret %q went through", wrong)
		}
	}
}
