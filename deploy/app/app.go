package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	createSignupsSQL = `CREATE TABLE IF NOT EXISTS signups (
		email text PRIMARY KEY, signed_up_at timestamptz NOT NULL DEFAULT now(), welcomed_at timestamptz)`
	insertSignupSQL = `INSERT INTO signups (email) VALUES ($1) ON CONFLICT DO NOTHING`
	enqueueSQL      = `INSERT INTO jobs (type, payload) VALUES ('welcome_email', jsonb_build_object('email', $1::text)) RETURNING id::text`
	// The condition makes a repeated delivery harmless: pgbell delivers at least once.
	welcomeSQL     = `UPDATE signups SET welcomed_at = now() WHERE email = $1 AND welcomed_at IS NULL`
	listSignupsSQL = `SELECT email, welcomed_at IS NOT NULL AS welcomed FROM signups ORDER BY signed_up_at DESC LIMIT 100`
)

const maxBody = 1 << 20

type app struct {
	pool *pgxpool.Pool
	key  []byte
}

// prepare makes the app's table, waiting for the database for a while.
func (a *app) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		_, err := a.pool.Exec(ctx, createSignupsSQL)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("make table signups: %w", err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /signups", a.signUp)
	mux.HandleFunc("GET /signups", a.list)
	mux.HandleFunc("POST /jobs", a.runJob)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := a.pool.Ping(r.Context()); err != nil {
			http.Error(w, "no database", http.StatusServiceUnavailable)
			return
		}
		answer(w, http.StatusOK, map[string]bool{"ok": true})
	})
	return mux
}

func (a *app) signUp(w http.ResponseWriter, r *http.Request) {
	var signup struct {
		Email string `json:"email"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&signup); err != nil || !strings.Contains(signup.Email, "@") {
		http.Error(w, `send {"email": "you@example.org"}`, http.StatusBadRequest)
		return
	}
	var job string
	// One transaction: no sign-up without its job, no job without its sign-up.
	err := pgx.BeginFunc(r.Context(), a.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(r.Context(), insertSignupSQL, signup.Email)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return errTaken
		}
		return tx.QueryRow(r.Context(), enqueueSQL, signup.Email).Scan(&job)
	})
	switch {
	case errors.Is(err, errTaken):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, "the database doesn't take it", http.StatusInternalServerError)
	default:
		answer(w, http.StatusAccepted, map[string]string{"job": job})
	}
}

var errTaken = errors.New("this address has signed up before")

// runJob is called by pgbell, once per attempt. Its status says what becomes of the job: 2xx completed, 400 failed for
// good, 500 another attempt later.
func (a *app) runJob(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "too long", http.StatusRequestEntityTooLarge)
		return
	}
	if err := verify(a.key, r.Header, body, time.Now()); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	var job struct {
		Type string `json:"type"`
		Data struct {
			Email string `json:"email"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &job); err != nil || job.Type != "welcome_email" {
		http.Error(w, fmt.Sprintf("no such job here: %.100q", job.Type), http.StatusBadRequest)
		return
	}
	tag, err := a.pool.Exec(r.Context(), welcomeSQL, job.Data.Email)
	if err != nil {
		http.Error(w, "the database doesn't take it", http.StatusInternalServerError)
		return
	}
	answer(w, http.StatusOK, map[string]bool{"first": tag.RowsAffected() == 1})
}

func (a *app) list(w http.ResponseWriter, r *http.Request) {
	type signup struct {
		Email    string `json:"email"`
		Welcomed bool   `json:"welcomed"`
	}
	rows, err := a.pool.Query(r.Context(), listSignupsSQL)
	if err == nil {
		var all []signup
		if all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[signup]); err == nil {
			answer(w, http.StatusOK, all)
			return
		}
	}
	http.Error(w, "the database doesn't answer", http.StatusInternalServerError)
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the client has gone: nobody is left to tell
}
