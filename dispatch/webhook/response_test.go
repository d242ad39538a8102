package webhook_test

import (
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/webhook"
)

// TestStatuses asks a server for every status there may be, with and without the headers that change its meaning.
func TestStatuses(t *testing.T) {
	t.Parallel()
	special := map[int]dispatch.Outcome{
		202: dispatch.OutcomeHeld,
		400: dispatch.OutcomeFail, 410: dispatch.OutcomeFail, 413: dispatch.OutcomeFail, 422: dispatch.OutcomeFail,
		429: dispatch.OutcomeUnavailable, 502: dispatch.OutcomeUnavailable, 503: dispatch.OutcomeUnavailable, 504: dispatch.OutcomeUnavailable,
	}
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"X-Job-No-Retry": r.Header.Get("Want-No-Retry"), "Retry-After": r.Header.Get("Want-Retry-After"), "X-Job-Snooze": r.Header.Get("Want-Snooze"),
		} {
			if value != "" {
				w.Header().Set(name, value)
			}
		}
		status, _ := strconv.Atoi(r.Header.Get("X-Job-Type"))
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, `{"why":"because"}`) // refused for 204 and 304
	})
	plain := newHandler(t, webhook.Config{URL: server.URL, AllowHeld: true})
	later := newHandler(t, webhook.Config{URL: server.URL, AllowHeld: true, Headers: map[string]string{"Want-Retry-After": "90"}})
	final := newHandler(t, webhook.Config{URL: server.URL, AllowHeld: true, Headers: map[string]string{"Want-No-Retry": "True"}})
	snooze := newHandler(t, webhook.Config{URL: server.URL, AllowHeld: true, Headers: map[string]string{"Want-Snooze": "120"}})

	for status := 200; status < 1000; status++ {
		if status == 620 {
			status = 998
		}
		job := newJob()
		job.Type = strconv.Itoa(status)
		is2xx := status < 300
		want, ok := special[status]
		if !ok {
			want = dispatch.OutcomeRetry
			if is2xx {
				want = dispatch.OutcomeDone
			}
		}

		result := plain.Run(within(t), job)
		parts := []string{"answered " + strconv.Itoa(status)}
		if !is2xx && status != 304 {
			parts = append(parts, `{"why":"because"}`)
		}
		if is2xx {
			parts = nil
		}
		wantOutcome(t, result, want, parts...)
		if result.Delay != 0 || result.PauseType != (status == 410) {
			t.Errorf("%d: delay %s, pause %t", status, result.Delay, result.PauseType)
		}
		if output := string(result.Output); (want == dispatch.OutcomeDone && status != 204) != (output == `{"why":"because"}`) {
			t.Errorf("%d: output %q", status, output)
		}

		result = later.Run(within(t), job)
		wantOutcome(t, result, want)
		wait := time.Duration(0)
		if want == dispatch.OutcomeRetry || want == dispatch.OutcomeUnavailable {
			wait = 90 * time.Second
		}
		if result.Delay != wait {
			t.Errorf("%d with Retry-After: delay %s, want %s", status, result.Delay, wait)
		}

		result = final.Run(within(t), job)
		if is2xx {
			wantOutcome(t, result, want)
		} else {
			wantOutcome(t, result, dispatch.OutcomeFail)
		}
		if result.PauseType != (status == 410) {
			t.Errorf("%d with X-Job-No-Retry: pause %t", status, result.PauseType)
		}

		result = snooze.Run(within(t), job)
		if is2xx {
			wantOutcome(t, result, dispatch.OutcomeSnooze)
			if result.Delay != 2*time.Minute {
				t.Errorf("%d with X-Job-Snooze: delay %s", status, result.Delay)
			}
		} else {
			wantOutcome(t, result, want)
		}
	}
}

func Test202WithoutOptInIsDone(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprint(w, `[1]`)
	})
	result := newHandler(t, webhook.Config{URL: server.URL}).Run(within(t), newJob())
	wantOutcome(t, result, dispatch.OutcomeDone)
	if string(result.Output) != "[1]" {
		t.Errorf("output %q", result.Output)
	}
}

func TestNoRetryWantsTrue(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Job-No-Retry", "false")
		w.WriteHeader(http.StatusInternalServerError)
	})
	wantOutcome(t, newHandler(t, webhook.Config{URL: server.URL}).Run(within(t), newJob()), dispatch.OutcomeRetry)
}

func TestSnooze(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Job-Snooze", r.Header.Get("Want")) })
	for value, want := range map[string]time.Duration{
		"1": time.Second, "31536000": 365 * 24 * time.Hour,
		"0": 0, "-5": 0, "1.5": 0, "soon": 0, "31536001": 0, "99999999999999999999": 0, strings.Repeat("9", 5000): 0,
	} {
		result := newHandler(t, webhook.Config{URL: server.URL, Headers: map[string]string{"Want": value}}).Run(within(t), newJob())
		if want > 0 {
			wantOutcome(t, result, dispatch.OutcomeSnooze)
			if result.Delay != want {
				t.Errorf("%s: delay %s", value, result.Delay)
			}
			continue
		}
		wantOutcome(t, result, dispatch.OutcomeRetry, "X-Job-Snooze", "whole seconds")
		if len(result.Err.Error()) > 300 {
			t.Errorf("error of %d bytes", len(result.Err.Error()))
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Int32
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { followed.Add(1) })
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		target := strings.Replace(elsewhere.URL, "http://", "http://bell:hunter2@", 1) + "/there?token=hunter2"
		status, _ := strconv.Atoi(r.Header.Get("X-Job-Type"))
		http.Redirect(w, r, target, status)
	})
	h := newHandler(t, webhook.Config{URL: server.URL})
	for _, status := range []int{301, 302, 303, 307, 308} {
		job := newJob()
		job.Type = strconv.Itoa(status)
		result := h.Run(within(t), job)
		wantOutcome(t, result, dispatch.OutcomeRetry, strconv.Itoa(status), "redirects are not followed", elsewhere.URL+"/there")
		if strings.Contains(result.Err.Error(), "hunter2") {
			t.Errorf("error tells a secret: %v", result.Err)
		}
	}
	if followed.Load() != 0 {
		t.Errorf("%d redirects were followed", followed.Load())
	}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body := r.Header.Get("Want")
		if size, err := strconv.Atoi(r.Header.Get("Size")); err == nil {
			body = `"` + strings.Repeat("a", size-2) + `"`
		}
		if r.Header.Get("Chunked") != "" {
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write([]byte(body))
	})
	const max = 8 << 10
	for _, chunked := range []string{"", "yes"} {
		for body, want := range map[string]string{
			`{"n":123456789012345678901234567890}`: `{"n":123456789012345678901234567890}`,
			` [1] `:                                `[1]`, `null`: `null`, `"é"`: `"é"`,
			``: ``, `OK`: ``, `<html>`: ``, `{"a":1}{"b":2}`: ``, `{"a":`: ``, "\"\xff\"": ``,
		} {
			h := newHandler(t, webhook.Config{URL: server.URL, Headers: map[string]string{"Want": body, "Chunked": chunked}})
			result := h.Run(within(t), newJob())
			wantOutcome(t, result, dispatch.OutcomeDone)
			// The server's own framing drops the spaces around a header that they came in.
			if got := string(result.Output); got != want || (want == "") != (result.Output == nil) {
				t.Errorf("%q: output %q, want %q", body, got, want)
			}
		}
		for size, want := range map[int]int{max - 1: max - 1, max: max, max + 1: 0, 1 << 20: 0} {
			h := newHandler(t, webhook.Config{URL: server.URL, MaxResponse: max,
				Headers: map[string]string{"Size": strconv.Itoa(size), "Chunked": chunked}})
			result := h.Run(within(t), newJob())
			wantOutcome(t, result, dispatch.OutcomeDone)
			if len(result.Output) != want {
				t.Errorf("body of %d bytes: output of %d, want %d", size, len(result.Output), want)
			}
		}
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	bodies := map[string]string{
		"long":    "beginning " + strings.Repeat("é ", 20_000) + "the last line",
		"hostile": "a\x00b\x1b[31mred\r\nnext\u202egnp.exe\u200b\xff\xfe end",
		"spaces":  strings.Repeat(" \n", 30_000),
	}
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		_, _ = w.Write([]byte(bodies[r.Header.Get("X-Job-Type")]))
	})
	h := newHandler(t, webhook.Config{URL: strings.Replace(server.URL, "http://", "http://bell:hunter2@", 1) + "/jobs?token=hunter2"})
	begins := "webhook " + server.URL + "/jobs: answered 500 Internal Server Error"
	run := func(jobType string) string {
		job := newJob()
		job.Type = jobType
		result := h.Run(within(t), job)
		wantOutcome(t, result, dispatch.OutcomeRetry)
		text := result.Err.Error()
		if !strings.HasPrefix(text, begins) || strings.Contains(text, "hunter2") {
			t.Errorf("%s: %q", jobType, text)
		}
		if !utf8.ValidString(text) || len(text) > 2500 || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%s: %d bytes: %q", jobType, len(text), text)
		}
		return text
	}
	if text := run("long"); !strings.HasSuffix(text, " é é the last line") || strings.Contains(text, "beginning") {
		t.Errorf("long: %q", text)
	}
	if text := run("hostile"); text != begins+": a b [31mred next gnp.exe \uFFFD end" {
		t.Errorf("hostile: %q", text)
	}
	if text := run("spaces"); text != begins {
		t.Errorf("spaces: %q", text)
	}
}

// TestConnectionIsKept sees one connection serve one answer of each kind after the other.
func TestConnectionIsKept(t *testing.T) {
	t.Parallel()
	remotes := map[string]bool{} // requests come one by one
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		remotes[r.RemoteAddr] = true
		status, _ := strconv.Atoi(r.Header.Get("X-Job-Type"))
		w.WriteHeader(status)
		if status != 204 {
			size := map[bool]int{true: 1000, false: 10_000}[status == 202] // what is big is not read where it isn't wanted
			_, _ = w.Write([]byte(strings.Repeat("x", size)))
		}
	})
	h := newHandler(t, webhook.Config{URL: server.URL, AllowHeld: true})
	for _, status := range []int{200, 201, 202, 204, 301, 400, 404, 410, 429, 500, 503} {
		job := newJob()
		job.Type = strconv.Itoa(status)
		h.Run(within(t), job)
	}
	if len(remotes) != 1 {
		t.Errorf("%d connections for 11 requests", len(remotes))
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, test := range []struct {
		value, date string
		want        time.Duration
	}{
		{"", "", 0}, {"0", "", 0}, {"7", "", 7 * time.Second}, {" 7 ", "", 7 * time.Second}, {"007", "", 7 * time.Second},
		{"3600", "", time.Hour}, {"3601", "", time.Hour}, {"9223372036854775807", "", time.Hour}, {"99999999999999999999", "", time.Hour},
		{"-1", "", 0}, {"+5", "", 0}, {"1.5", "", 0}, {"5s", "", 0}, {"soon", "", 0}, {"٣", "", 0},
		{at(time.Minute), "", time.Minute}, {at(-time.Minute), "", 0}, {at(24 * time.Hour), "", time.Hour},
		{at(time.Minute), at(-time.Minute), 2 * time.Minute}, {at(time.Minute), at(2 * time.Minute), 0}, {at(time.Minute), "garbage", time.Minute},
		{now.Add(time.Minute).Format(time.ANSIC), "", time.Minute},
		{"Sun, 99 Mar 2026 12:00:00 GMT", "", 0},
	} {
		if got := webhook.RetryAfter(http.Header{"Retry-After": {test.value}, "Date": {test.date}}, now); got != test.want {
			t.Errorf("%q with date %q: %s, want %s", test.value, test.date, got, test.want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120", "")
	f.Add("Sun, 01 Mar 2026 12:00:00 GMT", "Sun, 01 Mar 2026 11:59:00 GMT")
	f.Add("-1", "x")
	f.Add("00000000000000000000000000000000000001", "")
	f.Fuzz(func(t *testing.T, value, date string) {
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		got := webhook.RetryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, now)
		if got < 0 || got > time.Hour {
			t.Fatalf("%q: %s", value, got)
		}
		text, seconds := strings.Trim(value, " \t"), new(big.Int)
		if isDigits := text != "" && strings.Trim(text, "0123456789") == ""; isDigits {
			seconds.SetString(text, 10)
			want := time.Hour
			if seconds.Cmp(big.NewInt(3600)) < 0 {
				want = time.Duration(seconds.Int64()) * time.Second
			}
			if got != want {
				t.Fatalf("%q: %s, want %s", value, got, want)
			}
		} else if _, err := http.ParseTime(text); err != nil && got != 0 {
			t.Fatalf("%q is neither seconds nor a date: %s", value, got)
		}
	})
}

func FuzzClip(f *testing.F) {
	f.Add("a\x00\u202e é\xff", 3)
	f.Add(strings.Repeat("語", 50), 100)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = max(limit, 0) % 4096
		for _, got := range []string{webhook.Clip(text, limit), webhook.ClipTail(text, limit)} {
			if !utf8.ValidString(got) || len(got) > limit+len("…") {
				t.Fatalf("%q at %d: %q", text, limit, got)
			}
			if strings.ContainsFunc(got, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
				t.Fatalf("%q holds control characters", got)
			}
		}
	})
}

// An endpoint that answers what it was asked doesn't get the secrets of its configuration into errors.
func TestEchoedSecretsAreHidden(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		user, password, _ := r.BasicAuth()
		fmt.Fprintf(w, "%s %s %v %s %s", user, password, r.Header, r.URL.RawQuery, secret)
	})
	address := strings.Replace(server.URL, "http://", "http://robert:hush-password@", 1) + "/?token=hush-token"
	h := newHandler(t, webhook.Config{URL: address, Secrets: []string{secret}, Headers: map[string]string{"X-Key": "Bearer hush-header"}})
	result := h.Run(within(t), newJob())
	wantOutcome(t, result, dispatch.OutcomeRetry, "answered 500", "robert", "X-Key:[***]")
	for _, hidden := range []string{"hush-", secret, base64.StdEncoding.EncodeToString([]byte("robert:hush-password"))} {
		if strings.Contains(result.Err.Error(), hidden) {
			t.Errorf("%q tells %q", result.Err, hidden)
		}
	}
}
