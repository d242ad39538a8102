// Package webhook runs jobs by HTTP: each attempt of a job is one POST to a URL from the configuration.
//
// # What is sent
//
// The body is JSON. The payload stands in it as it came from the database, so that big numbers stay whole:
//
//	{"type": "send_email", "timestamp": "2026-03-01T09:30:00.5Z", "data": <the payload>, "job": {"id": "…", "attempt": 1,
//	 "max_attempts": 3, "priority": 0, "created_at": "2026-03-01T09:30:00.5Z", "scheduled_for": "2026-03-01T09:30:00.5Z"}}
//
// "timestamp" is when the job was created: it stays the same over all attempts. The headers are those of the Standard
// Webhooks specification (https://www.standardwebhooks.com), and some more:
//
//	Webhook-Id          the job's id, the same at every attempt; Idempotency-Key says it again
//	Webhook-Timestamp   when this attempt was sent, in seconds since 1970
//	Webhook-Signature   "v1," and the base64 HMAC-SHA256 of id.timestamp.body; one per secret, parted by spaces
//	Traceparent         "traceparent" of the job's metadata, if it is one by W3C Trace Context
//	X-Job-Type          the type, percent-encoded: "%" and every byte that isn't visible ASCII stand as %XX, which
//	                    decodeURIComponent, urllib.parse.unquote and url.PathUnescape turn back
//	X-Job-Attempt       which attempt this is, from 1
//	X-Job-Max-Attempts  how many there are in all
//	X-Job-Deadline      when this attempt is given up, RFC 3339
//	X-Job-Lease         this claim's name, with which complete_job, fail_job and heartbeat_job are called after a 202
//
// One attempt is one send. Neither this package nor net/http below it repeats a request of which a byte may have reached
// the other side; that is why it speaks HTTP/1.1 alone, and doesn't keep an idle connection for longer than a second:
// servers close theirs after two seconds or more, and the request that meets such a close is lost.
//
// # What the answer means
//
//	2xx                                     done; a JSON body is the job's result
//	2xx with X-Job-Snooze: <seconds>        put off for so long, 1 s to a year; the attempt doesn't count
//	202, with Config.AllowHeld              held until complete_job or fail_job, or the attempt's deadline
//	400, 413, 422                           failed for good
//	410                                     failed for good, and the type is paused
//	X-Job-No-Retry: true, not with a 2xx    failed for good, whatever the status
//	429, 502, 503, 504                      unavailable: the attempt is given back and the type's breaker opens
//	3xx                                     a failed attempt: redirects are not followed
//	408, 425, 500, and all other statuses   a failed attempt
//	no connection                           unavailable, as for 503: nothing was sent
//	a connection that breaks later          a failed attempt: it may have run
//	no answer by the deadline               a failed attempt; unavailable if not even a connection was had in a second
//
// Retry-After, in seconds or as a date, says when the next attempt is due wherever there is one; more than an hour
// counts as an hour, 0 and what can't be read as no Retry-After.
//
// A body of a 2xx that isn't JSON, or is over Config.MaxResponse, completes the job without a result: the work is
// done, and running it again would not make the answer smaller. A body that breaks off fails the attempt. Of other answers,
// the last part of the body's first 64 KiB is told in the error. Nothing is read beyond these bounds.
package webhook
