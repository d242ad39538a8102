package dispatch_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgbell/pgbell/dispatch"
)

// holders waits for the report to name a holder, and returns it.
func (f fixture) holder(conn *pgx.Conn, kind, name string) dispatch.Holder {
	f.Helper()
	var found dispatch.Holder
	f.eventually("the horizon is held by "+kind+" "+name, func() bool {
		report, err := dispatch.Horizon(f.Context(), conn, "public")
		if err != nil {
			f.Fatal(err)
		}
		for _, h := range report.Holders {
			if h.Kind == kind && h.Name == name {
				found = h
				return true
			}
		}
		return false
	})
	return found
}

func (f fixture) named(name string) *pgx.Conn {
	f.Helper()
	config, err := pgx.ParseConfig(f.url)
	if err != nil {
		f.Fatal(err)
	}
	config.RuntimeParams["application_name"] = name
	conn, err := pgx.ConnectConfig(f.Context(), config)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.Close(context.WithoutCancel(f.Context())) })
	return conn
}

func TestHorizonNamesWhoHoldsIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	doctor := f.named("doctor")

	t.Run("session", func(t *testing.T) {
		report := f.named("report")
		f.execOn(report, `BEGIN ISOLATION LEVEL REPEATABLE READ`)
		f.execOn(report, `SELECT 'secret payload' FROM jobs`)
		f.exec(`INSERT INTO jobs (type) SELECT 'x' FROM generate_series(1, 3)`)
		f.exec(`UPDATE jobs SET priority = 1`)
		h := f.holder(doctor, dispatch.HolderSession, "report")
		if h.PID != int32(report.PgConn().PID()) || h.State != "idle in transaction" || h.User != "postgres" || h.Client == "" || h.Hidden ||
			h.Open <= 0 || h.Statement <= 0 || h.Transactions < 2 {
			t.Errorf("holder: %+v", h)
		}
		if line := h.String() + h.Mend(); strings.Contains(line, "secret") || !strings.Contains(line, fmt.Sprintf("pg_terminate_backend(%d)", h.PID)) {
			t.Errorf("named as %s", line)
		}
	})

	t.Run("prepared", func(t *testing.T) {
		name := "pgbell_" + randomID()
		f.execOn(doctor, `BEGIN`)
		f.execOn(doctor, `SET LOCAL pgbell.ring = 'off'`)
		f.execOn(doctor, `INSERT INTO jobs (type) VALUES ('x')`)
		f.execOn(doctor, `PREPARE TRANSACTION '`+name+`'`)
		defer f.execOn(doctor, `ROLLBACK PREPARED '`+name+`'`)
		h := f.holder(doctor, dispatch.HolderPrepared, name)
		if h.Open <= 0 || h.PID != 0 || !strings.Contains(h.Mend(), "ROLLBACK PREPARED") {
			t.Errorf("holder: %+v", h)
		}
	})

	t.Run("slot", func(t *testing.T) {
		name := "pgbell_" + strings.ReplaceAll(randomID(), "-", "_")
		standby := f.standby(name)
		f.exec(`INSERT INTO jobs (type) VALUES ('x')`)
		h := f.holder(doctor, dispatch.HolderSlot, name)
		if h.PID == 0 || h.State != "active" || h.Transactions <= 0 || !strings.Contains(h.Mend(), "hot_standby_feedback") {
			t.Errorf("holder: %+v", h)
		}
		_ = standby.Close(t.Context())
		f.eventually("the slot has no consumer", func() bool {
			h = f.holder(doctor, dispatch.HolderSlot, name)
			return h.PID == 0
		})
		if h.State != "inactive" || !strings.Contains(h.Mend(), "pg_drop_replication_slot") {
			t.Errorf("holder: %+v", h)
		}
		f.exec(`SELECT pg_drop_replication_slot($1)`, name)
	})
}

// standby reports, as one with hot_standby_feedback would, that it needs what was deleted since now.
func (f fixture) standby(slot string) *pgconn.PgConn {
	f.Helper()
	config, err := pgconn.ParseConfig(f.url)
	if err != nil {
		f.Fatal(err)
	}
	config.RuntimeParams["replication"] = "true"
	conn, err := pgconn.ConnectConfig(f.Context(), config)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.Close(context.WithoutCancel(f.Context())) })
	if _, err := conn.Exec(f.Context(), `CREATE_REPLICATION_SLOT "`+slot+`" PHYSICAL RESERVE_WAL`).ReadAll(); err != nil {
		f.Fatal(err)
	}
	var at string
	var xmin int64
	if err := f.pool.QueryRow(f.Context(), `SELECT pg_current_wal_flush_lsn()::text, pg_snapshot_xmin(pg_current_snapshot())::text::int8`).Scan(&at, &xmin); err != nil {
		f.Fatal(err)
	}
	conn.Frontend().SendQuery(&pgproto3.Query{String: `START_REPLICATION SLOT "` + slot + `" PHYSICAL ` + at})
	feedback := []byte{'h'}
	feedback = binary.BigEndian.AppendUint64(feedback, 0) // the standby's clock
	feedback = binary.BigEndian.AppendUint32(feedback, uint32(xmin))
	feedback = binary.BigEndian.AppendUint32(feedback, uint32(xmin>>32))
	feedback = binary.BigEndian.AppendUint64(feedback, 0) // no catalog_xmin
	conn.Frontend().Send(&pgproto3.CopyData{Data: feedback})
	if err := conn.Frontend().Flush(); err != nil {
		f.Fatal(err)
	}
	return conn
}

// A role without rights on the statistics sees that there is somebody, and is told how to see more.
func TestHorizonWithoutRightsOnStatistics(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	plain := f.named("plain")
	role := "pgbell_" + strings.ReplaceAll(randomID(), "-", "_")
	f.exec(`CREATE ROLE ` + role)
	t.Cleanup(func() {
		_, _ = f.pool.Exec(context.WithoutCancel(t.Context()), `DROP OWNED BY `+role)
		_, _ = f.pool.Exec(context.WithoutCancel(t.Context()), `DROP ROLE `+role)
	})
	f.exec(`GRANT pgbell_worker TO ` + role)
	f.execOn(plain, `SET ROLE `+role)
	defer f.execOn(plain, `RESET ROLE`)
	holding := f.named("holding")
	f.execOn(holding, `BEGIN`)
	f.execOn(holding, `INSERT INTO jobs (type) VALUES ('x')`)
	h := f.holder(plain, dispatch.HolderSession, "holding")
	if !h.Hidden || h.PID != int32(holding.PgConn().PID()) || !strings.Contains(h.Mend(), "pg_read_all_stats") {
		t.Errorf("holder: %+v", h)
	}
	f.exec(`GRANT pg_read_all_stats TO ` + role)
	h = f.holder(plain, dispatch.HolderSession, "holding")
	if u, err := url.Parse(f.url); h.Hidden || h.Open <= 0 || err != nil || h.Client != u.Hostname() {
		t.Errorf("with the right: %+v", h)
	}
}
