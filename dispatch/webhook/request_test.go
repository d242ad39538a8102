package webhook_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/webhook"
)

// TestRequest looks at what a real server gets.
func TestRequest(t *testing.T) {
	t.Parallel()
	type seen struct {
		request *http.Request
		body    []byte
	}
	requests := make(chan seen, 1)
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- seen{r, body}
	})
	h := newHandler(t, webhook.Config{
		URL:       strings.Replace(server.URL, "http://", "http://bell:p%40ss@", 1) + "/jobs?tenant=7",
		Secrets:   []string{secret, "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 64)) + "\n"},
		Headers:   map[string]string{"x-env": "staging"},
		UserAgent: "pgbell/1.2.3",
	})
	job := newJob()
	job.Metadata = json.RawMessage(`{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}`)
	wantOutcome(t, h.Run(within(t), job), dispatch.OutcomeDone)
	got := <-requests

	if got.request.Method != "POST" || got.request.RequestURI != "/jobs?tenant=7" || got.request.ContentLength != int64(len(got.body)) {
		t.Errorf("got %s %s with content length %d", got.request.Method, got.request.RequestURI, got.request.ContentLength)
	}
	if user, password, _ := got.request.BasicAuth(); user != "bell" || password != "p@ss" {
		t.Errorf("basic authentication %q %q", user, password)
	}
	for name, want := range map[string]string{
		"webhook-id": job.ID, "idempotency-key": job.ID, "content-type": "application/json", "user-agent": "pgbell/1.2.3",
		"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "x-env": "staging",
		"x-job-type": "send_email", "x-job-attempt": "2", "x-job-max-attempts": "5", "x-job-lease": job.Lease,
		"x-job-deadline": "2026-03-01T10:30:00.500Z", "accept-encoding": "",
	} {
		if values := strings.Join(got.request.Header.Values(name), "|"); values != want {
			t.Errorf("%s: %q, want %q", name, values, want)
		}
	}
	if sent, err := strconv.ParseInt(got.request.Header.Get("Webhook-Timestamp"), 10, 64); err != nil || time.Since(time.Unix(sent, 0)) > time.Minute {
		t.Errorf("webhook-timestamp %q: %v", got.request.Header.Get("Webhook-Timestamp"), err)
	}
	for _, one := range []string{secret, "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 64))} {
		oracle, err := standardwebhooks.NewWebhook(one)
		if err != nil {
			t.Fatal(err)
		}
		if err := oracle.Verify(got.body, got.request.Header); err != nil {
			t.Errorf("verify: %v", err)
		}
	}
	want := `{"type":"send_email","timestamp":"2026-03-01T09:30:00.5Z","data":{"to":"a@b.c"},"job":{"id":"` + job.ID +
		`","attempt":2,"max_attempts":5,"priority":-3,"created_at":"2026-03-01T09:30:00.5Z","scheduled_for":"2026-03-01T09:31:00.5Z"}}`
	if string(got.body) != want {
		t.Errorf("body\n%s, want\n%s", got.body, want)
	}
}

func TestRequestWithoutSecretIsNotSigned(t *testing.T) {
	t.Parallel()
	header, _ := newHandler(t, webhook.Config{URL: "http://127.0.0.1/"}).Prepared(newJob(), time.Now())
	if values, there := header["Webhook-Signature"]; there {
		t.Errorf("signed: %q", values)
	}
	if header.Get("Webhook-Id") == "" || header.Get("Webhook-Timestamp") == "" || header.Get("User-Agent") != "pgbell" {
		t.Errorf("headers %v", header)
	}
}

func TestTraceparent(t *testing.T) {
	t.Parallel()
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
	h := newHandler(t, webhook.Config{URL: "http://127.0.0.1/"})
	for metadata, want := range map[string]string{
		`{"traceparent":"00-` + trace + `-01","tags":["a"]}`:                        "00-" + trace + "-01",
		`{"traceparent":"42-` + trace + `-ff"}`:                                     "42-" + trace + "-ff",
		`{"traceparent":"ff-` + trace + `-01"}`:                                     "",
		`{"traceparent":"00-` + strings.ToUpper(trace) + `-01"}`:                    "",
		`{"traceparent":"00-` + trace + `-01-x"}`:                                   "",
		`{"traceparent":"00-` + trace + `_01"}`:                                     "",
		`{"traceparent":"00-` + strings.Repeat("0", 32) + `-00f067aa0ba902b7-01"}`:  "",
		`{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"}`: "",
		`{"traceparent":"00-` + trace[:40] + `\r\nEvil: 1\n\n-01"}`:                 "",
		`{"traceparent":7}`:        "",
		`{"tags":["traceparent"]}`: "",
		`"traceparent"`:            "",
		`{"traceparent":`:          "",
		`{}`:                       "",
		``:                         "",
		`[{"traceparent":"00-` + trace + `-01"}]`: "",
	} {
		job := newJob()
		job.Metadata = json.RawMessage(metadata)
		header, _ := h.Prepared(job, time.Now())
		if got := header.Get("Traceparent"); got != want {
			t.Errorf("%s: %q, want %q", metadata, got, want)
		}
	}
}

// TestHostileType sends types that would break out of a header or of the body if they could.
func TestHostileType(t *testing.T) {
	t.Parallel()
	type seen struct{ header, body string }
	requests := make(chan seen, 1)
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Type string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("decode body: %v", err)
		}
		if r.Header.Get("Evil") != "" {
			t.Error("a header was injected")
		}
		requests <- seen{r.Header.Get("X-Job-Type"), body.Type}
	})
	h := newHandler(t, webhook.Config{URL: server.URL, Secrets: []string{secret}})
	for _, text := range []string{
		"a\r\nEvil: 1", "a\nEvil: 1\n\n", `","data":{},"x":"`, "naïve café ☕", "100% sure + a b", "\x7f\x01\t", strings.Repeat("語", 200), "</script>",
	} {
		job := newJob()
		job.Type = text
		wantOutcome(t, h.Run(within(t), job), dispatch.OutcomeDone)
		got := <-requests
		if decoded, err := url.PathUnescape(got.header); err != nil || decoded != text || got.body != text {
			t.Errorf("sent %q, got header %q (%v) and body %q", text, got.header, err, got.body)
		}
	}
}

func FuzzSignature(f *testing.F) {
	f.Add([]byte("0123456789abcdef01234567"), "01957f0e-8d2b-7c3a-9f4e-2b6d1a0c5e77", "send_email", []byte(`{"a":1}`), int64(1_772_357_400))
	f.Add(bytes.Repeat([]byte{255}, 64), "a b", "\r\n\x00", []byte(`"\u2028<>"`), int64(0))
	f.Fuzz(func(t *testing.T, key []byte, id, jobType string, payload []byte, seconds int64) {
		for len(key) < 24 {
			key = append(key, byte(len(key)))
		}
		key = key[:min(len(key), 64)]
		encoded := "whsec_" + base64.StdEncoding.EncodeToString(key)
		h := newHandler(t, webhook.Config{URL: "http://127.0.0.1/", Secrets: []string{secret, encoded}})
		job := newJob()
		job.ID, job.Type, job.Payload = "x"+id, jobType, payload
		header, body := h.Prepared(job, time.Unix(seconds, 0))

		oracle, err := standardwebhooks.NewWebhook(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if err := oracle.VerifyIgnoringTimestamp(body, header); err != nil {
			t.Errorf("verify: %v", err)
		}
		body[len(body)/2] ^= 1
		if oracle.VerifyIgnoringTimestamp(body, header) == nil {
			t.Error("a changed body was accepted")
		}
	})
}

func FuzzBody(f *testing.F) {
	f.Add("send_email", []byte(`{"n":123456789012345678901234567890.000000000000000001e-400}`))
	f.Add("\",\xff\r\n", []byte(" [ null ] "))
	f.Add("", []byte(`not JSON, so sent as a string`))
	f.Fuzz(func(t *testing.T, jobType string, payload []byte) {
		if !json.Valid(payload) {
			payload, _ = json.Marshal(string(payload))
		}
		job := newJob()
		job.Type, job.Payload = jobType, payload
		header, body := newHandler(t, webhook.Config{URL: "http://127.0.0.1/"}).Prepared(job, time.Now())

		var got struct {
			Type string
			Data json.RawMessage
			Job  struct{ ID string }
		}
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatalf("body %q: %v", body, err)
		}
		if !bytes.Equal(got.Data, bytes.Trim(payload, " \t\r\n")) {
			t.Errorf("data %q, payload %q", got.Data, payload)
		}
		if got.Job.ID != job.ID || utf8.ValidString(jobType) && got.Type != jobType {
			t.Errorf("id %q, type %q", got.Job.ID, got.Type)
		}
		if decoded, err := url.PathUnescape(header.Get("X-Job-Type")); err != nil || decoded != jobType {
			t.Errorf("X-Job-Type %q: %q, %v", header.Get("X-Job-Type"), decoded, err)
		}
		for _, c := range []byte(header.Get("X-Job-Type")) {
			if c <= ' ' || c >= 0x7f {
				t.Errorf("X-Job-Type %q holds %q", header.Get("X-Job-Type"), c)
			}
		}
	})
}
