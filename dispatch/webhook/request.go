package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pgbell/pgbell/dispatch"
)

// deadlineFormat is RFC 3339 with the milliseconds that a receiver may want to plan with.
const deadlineFormat = "2006-01-02T15:04:05.000Z07:00"

// newBody returns the body of a request. The payload is copied as it is: numbers that no float64 holds stay whole.
func newBody(job dispatch.Job) []byte {
	body := make([]byte, 0, len(job.Payload)+len(job.Type)+384)
	body = append(body, `{"type":`...)
	body = appendString(body, job.Type)
	body = append(body, `,"timestamp":`...)
	body = appendTime(body, job.CreatedAt)
	body = append(body, `,"data":`...)
	if len(job.Payload) == 0 {
		body = append(body, "null"...)
	}
	body = append(body, job.Payload...)
	body = append(body, `,"job":{"id":`...)
	body = appendString(body, job.ID)
	body = append(body, `,"attempt":`...)
	body = strconv.AppendInt(body, int64(job.Attempt), 10)
	body = append(body, `,"max_attempts":`...)
	body = strconv.AppendInt(body, int64(job.MaxAttempts), 10)
	body = append(body, `,"priority":`...)
	body = strconv.AppendInt(body, int64(job.Priority), 10)
	body = append(body, `,"created_at":`...)
	body = appendTime(body, job.CreatedAt)
	body = append(body, `,"scheduled_for":`...)
	body = appendTime(body, job.ScheduledFor)
	return append(body, "}}"...)
}

func appendString(body []byte, text string) []byte {
	// A string is always marshalled: what is no UTF-8 is replaced.
	quoted, _ := json.Marshal(text)
	return append(body, quoted...)
}

func appendTime(body []byte, t time.Time) []byte {
	body = append(body, '"')
	body = t.UTC().AppendFormat(body, time.RFC3339Nano)
	return append(body, '"')
}

// newHeader returns the headers of a request that is sent now.
func (h *Handler) newHeader(job dispatch.Job, now time.Time, body []byte) http.Header {
	header := make(http.Header, len(h.settings.header)+10)
	for name, values := range h.settings.header {
		header[name] = values
	}
	values := make([]string, 0, 10) // one allocation for all
	set := func(canonical, value string) {
		values = append(values, value)
		header[canonical] = values[len(values)-1 : len(values) : len(values)]
	}
	id, timestamp := headerText(job.ID), strconv.FormatInt(now.Unix(), 10)
	set("Webhook-Id", id)
	set("Webhook-Timestamp", timestamp)
	if len(h.settings.keys) > 0 {
		set("Webhook-Signature", h.sign(id, timestamp, body))
	}
	set("Idempotency-Key", id)
	if parent := traceparent(job.Metadata); parent != "" {
		set("Traceparent", parent)
	}
	set("X-Job-Type", headerText(job.Type))
	set("X-Job-Attempt", strconv.Itoa(job.Attempt))
	set("X-Job-Max-Attempts", strconv.Itoa(job.MaxAttempts))
	if !job.Deadline.IsZero() {
		set("X-Job-Deadline", job.Deadline.UTC().Format(deadlineFormat))
	}
	set("X-Job-Lease", headerText(job.Lease))
	return header
}

// sign returns a Webhook-Signature.
func (h *Handler) sign(id, timestamp string, body []byte) string {
	prefix := []byte(id + "." + timestamp + ".")
	var sum [sha256.Size]byte
	signatures := make([]byte, 0, len(h.settings.keys)*48)
	for i, key := range h.settings.keys {
		if i > 0 {
			signatures = append(signatures, ' ')
		}
		mac := hmac.New(sha256.New, key)
		mac.Write(prefix) // never returns an error
		mac.Write(body)
		signatures = append(signatures, "v1,"...)
		signatures = base64.StdEncoding.AppendEncode(signatures, mac.Sum(sum[:0]))
	}
	return string(signatures)
}

// headerText percent-encodes "%" and all bytes that are not visible ASCII, so that no text can break out of a header.
func headerText(text string) string {
	const hex = "0123456789ABCDEF"
	isSafe := func(c byte) bool { return c > ' ' && c < 0x7f && c != '%' }
	encode := 0
	for i := range len(text) {
		if !isSafe(text[i]) {
			encode++
		}
	}
	if encode == 0 {
		return text
	}
	var encoded strings.Builder
	encoded.Grow(len(text) + 2*encode)
	for i := range len(text) {
		if c := text[i]; isSafe(c) {
			encoded.WriteByte(c)
		} else {
			encoded.WriteByte('%')
			encoded.WriteByte(hex[c>>4])
			encoded.WriteByte(hex[c&15])
		}
	}
	return encoded.String()
}

// traceparent returns the job's, if it has a well-formed one by https://www.w3.org/TR/trace-context/, section 3.2: all
// versions so far look like 00-<32 hex>-<16 hex>-<2 hex>, in lower case, with no id all zeros.
func traceparent(metadata json.RawMessage) string {
	const key, zeros = "traceparent", "00000000000000000000000000000000"
	if !bytes.Contains(metadata, []byte(key)) {
		return ""
	}
	var fields map[string]json.RawMessage
	var value string
	if json.Unmarshal(metadata, &fields) != nil || json.Unmarshal(fields[key], &value) != nil || len(value) != 55 {
		return ""
	}
	for i, c := range []byte(value) {
		isDash := i == 2 || i == 35 || i == 52
		isHex := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
		if isDash != (c == '-') || !isDash && !isHex {
			return ""
		}
	}
	if value[:2] == "ff" || value[3:35] == zeros || value[36:52] == zeros[:16] {
		return ""
	}
	return value
}
