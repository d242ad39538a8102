package main

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/sqlfunc"
	"github.com/pgbell/pgbell/dispatch/subprocess"
	"github.com/pgbell/pgbell/dispatch/webhook"
	"github.com/pgbell/pgbell/internal/config"
)

// handlers are what the configuration's handlers became.
type handlers struct {
	types    map[string]dispatch.Type
	webhooks []*webhook.Handler
}

// close is for when no job runs any more.
func (h *handlers) close() {
	for _, each := range h.webhooks {
		each.Close()
	}
}

// buildHandlers makes the handlers. Pool is for SQL functions alone. All mistakes are returned together.
func buildHandlers(settings *config.Config, pool *pgxpool.Pool, guard *subprocess.Guard) (*handlers, error) {
	if len(settings.Handlers) == 0 {
		return nil, &failure{code: exitUsage, err: errors.New("no handlers are configured: no job would ever run"),
			hint: "say in " + config.DefaultPath + ` how jobs run, such as: handlers: {"*": {webhook: {url: "http://127.0.0.1:3000/jobs"}}}`}
	}
	built := &handlers{types: map[string]dispatch.Type{}}
	var mistakes config.Mistakes
	for _, name := range slices.Sorted(maps.Keys(settings.Handlers)) {
		each := settings.Handlers[name]
		handler, way, err := built.build(each, pool, guard)
		if err != nil {
			mistakes = append(mistakes, settings.Mistake(handlerKey(name, way), plainly(err)))
			continue
		}
		concurrency := each.Concurrency
		if each.SQLFunc != nil {
			concurrency = min(concurrency, int(pool.Config().MaxConns)) // more would wait for a connection with their time running
		}
		built.types[name] = dispatch.Type{
			Handler: handler, Concurrency: concurrency, Timeout: each.Timeout, MaxPayload: each.MaxPayload,
			Backoff: dispatch.Backoff{Base: each.Backoff.Base, Factor: each.Backoff.Factor, Cap: each.Backoff.Cap, Jitter: orNegative(each.Backoff.Jitter)},
		}
	}
	if len(mistakes) > 0 {
		built.close()
		return nil, &failure{code: exitUsage, err: mistakes}
	}
	return built, nil
}

// build makes one handler; way is the key that says most about it.
func (h *handlers) build(each config.Handler, pool *pgxpool.Pool, guard *subprocess.Guard) (handler dispatch.Handler, way string, err error) {
	switch {
	case each.Webhook != nil:
		made, err := webhook.New(webhook.Config{URL: each.Webhook.URL, Secrets: each.Webhook.Secrets, Headers: each.Webhook.Headers,
			AllowHeld: each.Webhook.AllowHeld, UserAgent: "pgbell/" + version})
		if err != nil {
			if strings.Contains(err.Error(), "secret") {
				return nil, "webhook.secret", err
			}
			return nil, "webhook.url", err
		}
		h.webhooks = append(h.webhooks, made)
		return made, "", nil
	case each.Subprocess != nil:
		var env []string
		for _, name := range slices.Sorted(maps.Keys(each.Subprocess.Env)) {
			env = append(env, name+"="+each.Subprocess.Env[name])
		}
		made, err := subprocess.New(subprocess.Config{Command: each.Subprocess.Command, Dir: each.Subprocess.Dir, Env: env, Guard: guard})
		return made, "subprocess.command", err
	default:
		made, err := sqlfunc.New(pool, sqlfunc.Config{Function: each.SQLFunc.Function})
		return made, "sqlfunc.function", err
	}
}

func handlerKey(name, way string) string {
	return config.Setting{Path: append([]string{"handlers", name}, strings.Split(way, ".")...)}.Key()
}

// plainly puts joined mistakes in one line, without what the key before them says already.
func plainly(err error) error {
	text := err.Error()
	for _, prefix := range []string{"configure sqlfunc: ", "command: ", "url: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return errors.New(strings.ReplaceAll(text, "\n", "; "))
}

// orNegative: for dispatch, 0 means the default, and a negative number none.
func orNegative(jitter float64) float64 {
	if jitter == 0 {
		return -1
	}
	return jitter
}
