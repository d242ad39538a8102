package demo

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/gofunc"
)

const (
	maxRequest     = 1 << 20
	signatureDrift = 5 * time.Minute
)

// application is what a user of pgbell would write: the handlers of four job types. It tells the ledger what it sees.
type application struct {
	ledger   *ledger
	listener net.Listener
	secret   []byte
	script   string   // path of the subprocess
	pipe     *os.File // in which scripts say that they have started
}

// newApplication listens on a free port and writes its script into dir. Run must be called.
func newApplication(ctx context.Context, dir string, ledger *ledger) (*application, error) {
	a := &application{ledger: ledger, secret: make([]byte, 32), script: filepath.Join(dir, "resize-image.sh")}
	_, _ = rand.Read(a.secret) // never fails
	pipe := filepath.Join(dir, "started")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		return nil, fmt.Errorf("make pipe %s: %w", pipe, err)
	}
	if err := os.WriteFile(a.script, []byte(strings.ReplaceAll(scriptText, "{pipe}", shellQuote(pipe))), 0o600); err != nil {
		return nil, fmt.Errorf("write script: %w", err)
	}
	var err error
	// For reading and writing: so neither this nor a script waits for the other to open it.
	if a.pipe, err = os.OpenFile(pipe, os.O_RDWR, 0); err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	if a.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for webhooks: %w", err), a.pipe.Close())
	}
	return a, nil
}

// run serves until ctx is done, and then returns when all that scripts have said is read.
func (a *application) run(ctx context.Context) error {
	server := &http.Server{Handler: http.HandlerFunc(a.serveMail), ReadHeaderTimeout: 10 * time.Second}
	served, piped := make(chan error, 1), make(chan error, 1)
	go func() { served <- server.Serve(a.listener) }()
	go func() { piped <- a.readPipe() }()
	<-ctx.Done()
	_, err := io.WriteString(a.pipe, pipeEnd+"\n")
	if err != nil {
		err = fmt.Errorf("end pipe: %w", err)
	} else {
		err = <-piped
	}
	err = errors.Join(err, a.pipe.Close(), server.Close())
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve webhooks: %w", serveErr))
	}
	return err
}

func (a *application) url() string { return "http://" + a.listener.Addr().String() + "/jobs" }

func (a *application) webhookSecret() string {
	return "whsec_" + base64.StdEncoding.EncodeToString(a.secret)
}

// delivery is the part of a webhook's body that this application reads.
type delivery struct {
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
	Job  struct {
		ID      string `json:"id"`
		Attempt int    `json:"attempt"`
	} `json:"job"`
}

// serveMail is the webhook endpoint.
func (a *application) serveMail(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, "the body is too big or broken", http.StatusRequestEntityTooLarge)
		return
	}
	if err := verifySignature(a.secret, r.Header, body, arrived); err != nil {
		a.ledger.surprise("a webhook came with a bad signature: %v", err)
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	var got delivery
	if err := json.Unmarshal(body, &got); err != nil {
		a.ledger.surprise("a webhook's body is not what is documented: %v", err)
		http.Error(w, "the body is not JSON", http.StatusBadRequest)
		return
	}
	if id, attempt := r.Header.Get("Webhook-Id"), r.Header.Get("X-Job-Attempt"); id != got.Job.ID || attempt != strconv.Itoa(got.Job.Attempt) {
		a.ledger.surprise("a webhook's headers name job %s attempt %s, its body job %s attempt %d", id, attempt, got.Job.ID, got.Job.Attempt)
	}
	a.ledger.started(got.Job.ID, got.Job.Attempt, arrived)
	mail := readPayload(got.Data)
	switch {
	case mail.Permanent:
		http.Error(w, "no mailbox of that name", http.StatusUnprocessableEntity)
	case got.Job.Attempt <= mail.Fails:
		http.Error(w, "the mail server is busy", http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"demo": mail.Demo, "sent_to": mail.To}) // the sidecar sees that it broke off
	}
}

// readPayload takes a payload that isn't the stream's for one without anything.
func readPayload(text []byte) payload {
	var p payload
	if err := json.Unmarshal(text, &p); err != nil {
		return payload{}
	}
	return p
}

// verifySignature checks a request by the Standard Webhooks specification, as any receiver would: HMAC-SHA256 over id, timestamp and
// body, and a timestamp that isn't old.
func verifySignature(secret []byte, header http.Header, body []byte, now time.Time) error {
	id, timestamp := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || id == "" {
		return errors.New("webhook-id or webhook-timestamp is missing")
	}
	if now.Sub(time.Unix(seconds, 0)).Abs() > signatureDrift {
		return errors.New("webhook-timestamp is too far from now")
	}
	mac := hmac.New(sha256.New, secret)
	_, _ = fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body) // a hash never fails
	sum := mac.Sum(nil)
	for signature := range strings.FieldsSeq(header.Get("Webhook-Signature")) {
		encoded, isV1 := strings.CutPrefix(signature, "v1,")
		given, err := base64.StdEncoding.DecodeString(encoded)
		if isV1 && err == nil && hmac.Equal(given, sum) {
			return nil
		}
	}
	return errors.New("no webhook-signature fits")
}

// pipeEnd is the line that ends the reading of the pipe.
const pipeEnd = "end"

// scriptText is the subprocess. It uses what every POSIX shell has built in, so that it starts nothing else.
const scriptText = `#!/bin/sh
# The payload comes on standard input, the job in the environment; the exit status is the answer.
echo "$PGBELL_JOB_ID $PGBELL_ATTEMPT" >{pipe}
IFS= read -r payload || : # no newline ends it
number() { # of a key of the payload; 0 without it
  case $payload in
    *"\"$1\":"*) rest=${payload#*"\"$1\":"} rest=${rest# } number=${rest%%[!0-9]*} ;;
    *) number=0 ;;
  esac
}
case $payload in
  *'"permanent": true'* | *'"permanent":true'*)
    echo 'this is not an image' >&2
    exit 65 ;;
esac
number fails
if [ "$PGBELL_ATTEMPT" -le "${number:-0}" ]; then
  echo 'no room for the thumbnail' >&2
  exit 75
fi
number demo
echo "{\"demo\": ${number:-0}, \"size\": \"200x200\"}"
`

// readPipe notes the starts of scripts until the line that ends it.
func (a *application) readPipe() error {
	lines := bufio.NewScanner(a.pipe)
	for lines.Scan() {
		now := time.Now()
		if lines.Text() == pipeEnd {
			return nil
		}
		id, attempt, _ := strings.Cut(lines.Text(), " ")
		number, err := strconv.Atoi(attempt)
		if err != nil {
			a.ledger.surprise("a script said %q where it should have named its job and attempt", lines.Text())
			continue
		}
		a.ledger.started(id, number, now)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read pipe: %w", err)
	}
	return errors.New("read pipe: it was closed")
}

func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// updateSearch is the Go handler.
func (a *application) updateSearch() dispatch.Handler {
	return gofunc.Typed(func(_ context.Context, job dispatch.Job, page payload) (any, error) {
		a.ledger.started(job.ID, job.Attempt, time.Now())
		switch {
		case page.Permanent:
			return nil, gofunc.Fail(errors.New("the page was deleted"))
		case job.Attempt <= page.Fails:
			return nil, errors.New("the index is locked")
		}
		return map[string]any{"demo": page.Demo, "words": 1234}, nil
	})
}

// anything runs the jobs of all other types.
func anything() dispatch.Handler {
	return gofunc.New(func(_ context.Context, job dispatch.Job) (any, error) {
		var args struct {
			Name string `json:"name"`
		}
		if err := json.Unmarshal(job.Payload, &args); err != nil || args.Name == "" {
			args.Name = "stranger"
		}
		return map[string]any{"greeting": "hello, " + args.Name}, nil
	})
}
