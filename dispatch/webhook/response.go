package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgbell/pgbell/dispatch"
)

const (
	// maxErrorBody is how much of the body of an answer that isn't a 2xx is read.
	maxErrorBody = 64 << 10

	// maxUnused is how much of a body that nobody wants is read, so that the connection can be used again.
	maxUnused = 4 << 10

	maxRetryAfter = time.Hour
	maxSnooze     = 365 * 24 * time.Hour
)

// answered says what becomes of an attempt that got an answer, as the package comment has it.
func (h *Handler) answered(ctx context.Context, response *http.Response) dispatch.Result {
	status := response.StatusCode
	if status >= 200 && status < 300 {
		return h.accepted(ctx, response)
	}

	err := h.refusal(response)
	delay := retryAfter(response.Header, time.Now())
	switch {
	case status == http.StatusGone:
		result := dispatch.Fail(err)
		result.PauseType = true
		return result
	case strings.EqualFold(strings.TrimSpace(response.Header.Get("X-Job-No-Retry")), "true"):
		return dispatch.Fail(err)
	}
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return dispatch.Fail(err)
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return dispatch.Unavailable(err, delay)
	default:
		return dispatch.RetryIn(err, delay)
	}
}

// accepted says what becomes of an attempt that was answered with a 2xx.
func (h *Handler) accepted(ctx context.Context, response *http.Response) dispatch.Result {
	if text := response.Header.Get("X-Job-Snooze"); text != "" {
		discard(response)
		seconds, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
		delay := time.Duration(seconds) * time.Second
		if err != nil || delay < time.Second || delay > maxSnooze {
			return dispatch.Retry(h.failure(nil, fmt.Sprintf("answered X-Job-Snooze: %s; it must be whole seconds, 1 to %d",
				clip(text, 40), int(maxSnooze.Seconds()))))
		}
		return dispatch.Snooze(delay)
	}
	if response.StatusCode == http.StatusAccepted && h.settings.config.AllowHeld {
		discard(response)
		return dispatch.Held()
	}
	output, err := h.output(response)
	if err != nil {
		if ctx.Err() != nil {
			return h.interrupted(ctx, "in the middle of the answer")
		}
		return dispatch.Retry(h.failure(err, fmt.Sprintf("answered %s, but the answer broke off", statusText(response.StatusCode))))
	}
	return dispatch.Done(output)
}

// output returns the job's result: the body, if it is JSON and not too big.
func (h *Handler) output(response *http.Response) (json.RawMessage, error) {
	limit := int64(h.settings.config.MaxResponse)
	if response.ContentLength > limit {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return nil, err
	}
	body = bytes.TrimSpace(body)
	if int64(len(body)) > limit || !utf8.Valid(body) || !json.Valid(body) {
		return nil, nil
	}
	return body, nil
}

// discard reads a body that its sender has said to be small.
func discard(response *http.Response) {
	if response.ContentLength > 0 && response.ContentLength <= maxUnused {
		// An error only costs the connection.
		_, _ = io.Copy(io.Discard, response.Body)
	}
}

// refusal is the error of an answer that isn't a 2xx.
func (h *Handler) refusal(response *http.Response) error {
	status := response.StatusCode
	text := "answered " + statusText(status)
	switch {
	case status >= 300 && status < 400:
		if location, err := url.Parse(response.Header.Get("Location")); err == nil && location.String() != "" {
			text += ", a redirect to " + clip(redacted(location), 200)
		}
		text += "; redirects are not followed: put the final address into the url"
	case status == http.StatusGone:
		text += "; it takes no more jobs of this type"
	}
	if status < 200 {
		return h.failure(nil, text) // after 101 there is no body, but another protocol
	}
	// If it breaks off, what came is told.
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxErrorBody))
	if tail := clipTail(string(body), maxErrorText); tail != "" {
		text += ": " + tail
	}
	return h.failure(nil, text)
}

func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

// retryAfter returns how long the answer asks to wait, by RFC 9110, section 10.2.3: at most maxRetryAfter; 0 if it
// doesn't ask, or not in a way that can be read. A date is taken relative to the server's own, if that is there.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := strings.Trim(header.Get("Retry-After"), " \t")
	if text == "" {
		return 0
	}
	if strings.Trim(text, "0123456789") == "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) { // err: out of range
			return maxRetryAfter
		}
		return time.Duration(seconds) * time.Second
	}
	until, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return min(max(until.Sub(now), 0), maxRetryAfter)
}
