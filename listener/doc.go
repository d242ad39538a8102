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
// Others are counted and ignored. A transaction that notifies takes a lock of the whole cluster at its commit and holds it
// through the flush, so that ringing commits can't share one. So the trigger on jobs rings only while somebody sleeps. Two
// advisory locks tell who does what; their keys are below.
//
//	S  sleepers      held shared by each sleeping sidecar, on its bell connection
//	U  unannounced   held shared, until it ends, by each transaction that has made work appear without ringing
//
// The trigger takes U, then probes S, and rings unless S is free. A sidecar that has run out of work
//
//	(1) takes S;
//	(2) reads from pg_locks which transactions hold U, and waits until none of those is left; early committers are found by
//	    polls meanwhile;
//	(3) looks once more, thoroughly: for rows, too, that a claim passes over because another transaction has them locked;
//	(4) sleeps until a ring.
//
// Nobody ever waits in a lock's queue: a key of S that can't be had is tried again, and after 5 s the log says who keeps it. A
// sidecar that waits for long in (2) needn't stay awake for it: after 50 ms Sleep returns, the bell connection goes on
// watching, and each end of a transaction that it watches rings, as it were; after the last one Sleep does (3) again. The looks
// get rarer as time goes by, down to one in 2 s, and after 5 s one holder is named, and the next when that one has ended.
// A prepared transaction has another name than before: each one counts that holds U.
//
// # Asleep and awake
//
// At low rates a sidecar holds S all the time. Sleep then returns at once, without a statement, and each insert rings: the
// latency and the cost of a NOTIFY. When rings come faster than AwakeAbove, the sidecar lets S go, inserts are silent, and
// Sleep polls, every PollAwake, until the polls have found nothing for Quiet; then it does (1) to (3).
//
//	          S is taken, and U's holders are read
//	awake   ---------------------------------------->  asleep
//	polls   <----------------------------------------  each insert rings
//	          rings too fast, or to a busy Dispatcher; bell lost; deaf; queue of notifications half full
//
// An awake sidecar hears no rings, save those that others' sleep brings about, and so can't know their rate: falling asleep
// is how it asks. A flood of jobs that are not for it ends such a sleep after 30 rings, and after 10 when the last one was
// ended so, too. Each time that this is within 200 ms the next sleep waits four times as long, up to QuietMax: the flood's
// producers pay for a few rings in 10 s, and the sidecar's polls get rarer too, down to one each PollAwakeMax.
// A sleep that lasts sets this back.
//
// S is let go, too, when the Dispatcher has said Awake, 50 ms have passed and at least ten rings were to nobody's use, so that
// one that is busy now and then does not go the whole way back to sleep after each job.
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
// A server that was demoted answers, and echoes, while inserts ring elsewhere. With the answer to a ping it tells that it has become
// read-only, which the next canary, sent at once, makes sure of: it finds out before it notifies, and a server that can't be
// written to counts as deafness, so that connections are made anew, to the primary if the URL leads there.
//
// A canary costs two transactions, its own and its delivery, and the lock of a NOTIFY. Between canaries both connections are
// pinged, every PingInterval: a Sync of the protocol, which the server answers without a transaction. A connection whose
// answer is missing for EchoTimeout is made anew, alone. A ping can't tell whether LISTEN stands, nor how full the queue of
// notifications is. So there are canaries still: every 12 s at least once something was heard, while the queue is more than
// half full, and while there is no jobs table.
//
// # Why no wake-up is lost
//
// A row that was made claimable without a ring held U before S was seen free. So (1) came after that: (2) waits for that
// transaction, and since a transaction's locks go only after its rows can be seen, (3) finds them. A row that comes with a
// ring is told by it: the ring is delivered after the commit. Rolling back a savepoint gives back the U that was taken in it
// and drops the ring that was sent in it, but also the row.
//
// Each time that S is let go, or gone with its connection, there is a token on Rings, and the next Sleep does all steps again.
// A Listener is heard only after LISTEN is committed, and each change between heard and deaf, as well as each LISTEN, delivers
// a token. A row committed before that LISTEN is found by the recheck that Sleep then asks for; a row committed after it
// rings, S being held; a ring that the server sent into a connection that died is followed by the loss of that connection,
// which is such a change, or by a missing echo. Rings has room for one token, and a token that is there already stands for
// any number of rings, because a Dispatcher takes it before it claims.
//
// It fails loud: a lock that is held for too long, or a probe that meets another one, means rings that nobody needed. The
// one silent failure would be a sidecar that believes itself asleep while its S is gone with a dead session. That is why S
// is on a connection that is always being read, whose canary proves both connections.
//
// bell.pml is a model of all this that knows no polling; make model has it checked, whole and with each step left out.
//
// # Session locks
//
// They are advisory locks with two keys: the first is the oid of the jobs table, so that installations in one database
// don't meet, the second says which. In pg_locks the first is classid, the second objid, and objsubid is 2.
//
//	class  second key           held by
//	P      worker number (> 0)  the bell connection, exclusively: the worker with this number in job_workers is present
//	S      -8 to -1, all        sleeping sidecars, shared; an insert probes one of them, by its process number
//	U      0                    transactions that made work appear without ringing, shared
//
// The probe of S is a try to take it alone, for a microsecond. With one key instead of eight, 0.7 % of the inserts of 32
// clients met each other there on two cores, and rang for nothing; with eight it is 0.03 %.
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
