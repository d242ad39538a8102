// Package listener hears of new jobs, and lets others see that this process lives.
//
// Run keeps two connections to the database, both direct or in session mode, never through a transaction pooler:
//
//	name (application_name)  what it does
//	pgbell listener          LISTENs, and does nothing else
//	pgbell bell              sends the canary, holds session locks; it is always being read, so that its loss is seen at once
//
// # The wake protocol
//
// All notifications go over the channel pgbell_<schema>, in the database of the jobs table. The payload says what happened:
//
//	''              a ring: rows may have become claimable
//	cancel          the cancel of a running job was asked for
//	canary:<nonce>  the echo of a canary; one that this Listener did not just send belongs to another process
//
// Others are counted and ignored. The trigger on jobs rings in each transaction that inserts rows or makes them claimable.
// Falling asleep is a dialogue, since only the Listener knows from when on a row rings, and only the Dispatcher can look for
// the rows before: Sleep calls its recheck once after each time that the bell began to be heard. At present there is
// nothing more to it: the trigger always rings, so a Listener that hears is one that may sleep, and Awake has nothing to do.
//
// # Heard and deaf
//
// A silent connection may be half-open, and LISTEN through a transaction pooler returns success and delivers nothing. So
// the bell connection sends a canary, a NOTIFY with a fresh nonce, as soon as both connections stand, and then every
// CanaryInterval. Its echo on the LISTEN connection proves both. The bell is heard from the first echo on, until either
// connection is lost or an echo is missing for EchoTimeout; then both are given up and made anew, with a backoff. While it
// isn't heard the Listener is deaf: the Dispatcher polls fast, Health says why, and the log says so once, naming the likely
// cause and the mend. A pooler that gives itself away, because the process that the connection was given isn't the one
// that answers, is named as such.
//
// # Why no wake-up is lost
//
// Deaf becomes heard only after LISTEN is committed, and each change between the two, as well as each LISTEN, delivers a
// token on Rings. A row committed before that LISTEN is found by the recheck that Sleep then asks for; a row committed
// after it rings; a ring that the server sent into a connection that died is followed by the loss of that connection,
// which is such a change, or by a missing echo. Rings has room for one token, and a token that is there already stands for
// any number of rings, because a Dispatcher takes it before it claims.
//
// # Session locks
//
// They are advisory locks with two keys: the first is the oid of the jobs table, so that installations in one database
// don't meet, the second says which. In pg_locks the first is classid, the second objid, and objsubid is 2.
//
//	class  second key           held by
//	P      worker number (> 0)  the bell connection, exclusively: the worker with this number in job_workers is present
//	S      0                    reserved: sleeping sidecars
//	U      -1                   reserved: transactions that inserted without ringing
//
// P is free as soon as the server sees the bell connection go, which is at once when the process is killed. Others read it
// from pg_locks and never take it. No session lock is taken before the first echo over the connection: one taken through a
// transaction pooler would stay on a server connection that belongs to somebody else.
//
// # Settings of the connections
//
// Both ask, as startup parameters, for no idle_session_timeout, short TCP keepalives, and short statement and lock
// timeouts. A pooler that refuses them gets a connection without: nothing is ever SET, as that would leak like a lock.
package listener
