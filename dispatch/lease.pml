/* Leases: whatever crashes, each job comes to its end, once, by who holds it. doc.go tells the protocol, whose names and steps
   are used; .ci/model runs this, whole and with each switch, which leaves out one step and must be caught.

   Each statement is one step of the database, its commit and its locks included; a claim is two, since it looks at its worker's row
   before it commits. Its answer may be lost, or it may come to be committed after its sender has given it up. What happens by
   itself follows: handlers, faults, and time. There are no clocks. A timer may end at any moment, unless what happens in less time
   keeps it from that: a worker's own comes before the one that others judge it by, as it counts from the sending of a heartbeat,
   and in between (a fifth of the lease time) handlers stop; who can heartbeat, does.

   Each sidecar has one slot. Numbers in job_workers are w, w + WORKERS, ... for sidecar w.

   Switches, each of which leaves something out:
   SETTLE_BY_ID      settles don't ask for the lease         RELEASE_BY_ID     nor do jobs that are given back
   COMPLETE_BY_ID    nor does complete_job                   NO_SECOND_LOOK    markDead doesn't look at the heartbeat again
   NO_MARK           jobs are reaped without markDead        NO_GRACE          presence counts just after a start of the server
   NO_SELF_CANCEL    jobs go on when the lease ends          CANCEL_LATE       they are cancelled no sooner than others may reap
   NO_FAST_BEATS     a worker without its lock isn't faster  BEAT_WHEN_DEAD    heartbeats of a worker declared dead succeed
   NO_CANCEL         who was declared dead goes on           NO_WAIT           it doesn't wait for a claim under way
   CLAIM_WHEN_DEAD   and claims                              ROWLESS_LIVES     a worker without a row isn't dead
   NO_COMPARE        unheard claims are not looked for       COMPARE_ONCE      they are, but not until none can come
   GIVEN_UP          nor are outcomes that were not written
   REAP_NO_HELD      no reaping of jobs without a worker     CLAIM_NO_RENEW    the claim of an idle worker is no heartbeat

   Not left out, but beyond what is promised:
   CUT_RESETS        the server ends the sessions of a worker that is cut off before that can know
   PROMOTED          a standby takes over, whose start was long ago
   DELETES           unregister deletes a worker's row in any case: borne, as a holder without a row is dead */

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef JOBS
#define JOBS 1
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2     /* max_attempts */
#endif
#ifndef CRASHES
#define CRASHES 0      /* times that a sidecar is killed, and started anew */
#endif
#ifndef STOPS
#define STOPS 0        /* times that one is stopped, and goes on */
#endif
#ifndef CUTS
#define CUTS 0         /* times that the network of one is cut */
#endif
#ifndef RESTARTS
#define RESTARTS 0     /* times that the server restarts, with or without its clients' knowing */
#endif
#ifndef KILLS
#define KILLS 0        /* times that a bell connection is terminated */
#endif
#ifndef LOSSES
#define LOSSES 0       /* times that an answer is lost, or given up */
#endif
#ifndef SHUTDOWNS
#define SHUTDOWNS 0    /* times that a sidecar is told to end, and another version started */
#endif
#ifndef RETRIES
#define RETRIES 0      /* times that an attempt fails */
#endif
#ifndef HOLDS
#define HOLDS 0        /* times that a job is accepted (202) */
#endif
#define NUMBERS (WORKERS * (1 + CRASHES + STOPS + CUTS + RESTARTS + KILLS + SHUTDOWNS))

#define NOBODY 255

#define PENDING 0
#define PROCESSING 1
#define FINAL 2        /* completed or failed */

#define FINE 0
#define CUT 1
#define HUNG 2         /* it talks to a server that is gone, and has yet to notice */

#define DONE 1         /* verdicts */
#define RETRY 2
#define BACK 3
#define HOLD 4

#define LOST 1         /* causes of a cancel */
#define ENDING 2
#define SHUTDOWN 3

#define WATCHED 1      /* what a reaper has to do with its suspect: its lock was missing, and is looked for again */
#define CONVICTED 2    /* mark it dead */
#define DEAD 3         /* reap its jobs */

/* The database: jobs, job_workers, the locks P. */
byte status[JOBS], lease[JOBS], attempts[JOBS];
byte holder[JOBS];     /* a worker's number + 1; 0: nobody's */
bool over[JOBS];       /* held_until has passed */
byte leases = 0;       /* used so far */
bool row[NUMBERS], dead[NUMBERS], expired[NUMBERS], locked[NUMBERS];
bool young = false;    /* the server was started less than a lease time ago */

/* Claims at the server, one for each sidecar. */
bool open[WORKERS], renews[WORKERS];
byte open_job[WORKERS], open_number[WORKERS];

/* A sidecar. */
bool unnamed[WORKERS]; /* it has yet to register (anew) */
byte number[WORKERS];
bool stopped[WORKERS], draining[WORKERS];
byte net[WORKERS];
bool late[WORKERS];    /* its own timer: the lease is about to end */
bool suspicious[WORKERS];
byte asked[WORKERS];   /* a claim: 1 under way, 2 answered */
byte answer[WORKERS];
byte held[WORKERS];    /* the lease of its attempt */
byte job[WORKERS], cause[WORKERS], verdict[WORKERS];
bool running[WORKERS];
byte unknown[WORKERS], unknown_job[WORKERS]; /* a lease that the database has for it, to be given back */
byte accepted[JOBS];   /* a lease that the application has */

/* A reaper. */
byte task[WORKERS], suspect[WORKERS];
bool beaten[WORKERS];  /* the suspect has heartbeat since the look */

/* What is asserted. */
bool faulty[WORKERS];  /* stopped or cut off since its last heartbeat */
bool paused[WORKERS];  /* stopped since it last knew that its lease stood */

byte crashes = 0, stops = 0, cuts = 0, restarts = 0, kills = 0, losses = 0, shutdowns = 0, retries = 0, holds = 0;

#define acts(w) (!stopped[w])
#define reaches(w) (!stopped[w] && net[w] == FINE)
#define serves(w) (reaches(w) && !unnamed[w])
#define is(n) (number[(n) % WORKERS] == (n) && !unnamed[(n) % WORKERS])
#define of(n) ((n) % WORKERS)
#define lives(n) (row[n] && !dead[n])
#define idle(w) (held[w] == 0 && asked[w] == 0 && unknown[w] == 0 && !suspicious[w])

#if WORKERS > 1
#define unlocked(j) (!(open[0] && open_job[0] == j) && !(open[1] && open_job[1] == j))
#define watched(n) (task[0] == WATCHED && suspect[0] == n && !beaten[0] || task[1] == WATCHED && suspect[1] == n && !beaten[1])
#define renewing(n) (open[0] && renews[0] && open_number[0] == n || open[1] && renews[1] && open_number[1] == n)
#else
#define unlocked(j) (!(open[0] && open_job[0] == j))
#define watched(n) (task[0] == WATCHED && suspect[0] == n && !beaten[0])
#define renewing(n) (open[0] && renews[0] && open_number[0] == n)
#endif

#ifdef CLAIM_WHEN_DEAD
#define may_claim(w) (serves(w) && !draining[w] && held[w] == 0 && asked[w] == 0 && !open[w])
#else
#define may_claim(w) (serves(w) && !draining[w] && held[w] == 0 && asked[w] == 0 && !open[w] && lives(number[w]))
#endif
#define claimable(w, j) (status[j] == PENDING && unlocked(j))

#ifdef NO_FAST_BEATS
#define beats(w) (held[w] != 0 && (late[w] || faulty[w] || expired[number[w]]))
#else
#define beats(w) (held[w] != 0 && (late[w] || faulty[w] || expired[number[w]]) || !locked[number[w]] && watched(number[w]))
#endif

/* The database holds job j for w, which doesn't know of it. */
#define strange(w, j) (status[j] == PROCESSING && holder[j] == number[w] + 1 && lease[j] != held[w])
#if JOBS > 1
#define nothing_strange(w) (!strange(w, 0) && !strange(w, 1) && to_come(w))
#define holds_jobs(n) (status[0] == PROCESSING && holder[0] == n + 1 || status[1] == PROCESSING && holder[1] == n + 1)
#else
#define nothing_strange(w) (!strange(w, 0) && to_come(w))
#define holds_jobs(n) (status[0] == PROCESSING && holder[0] == n + 1)
#endif
#ifdef COMPARE_ONCE
#define to_come(w) true
#else
#define to_come(w) (!open[w])
#endif

/* Worker v can't run its job any more by the time that others may take it: it knew sooner; or it was stopped, and does not
   run evenly. */
#if defined(NO_SELF_CANCEL) || defined(CANCEL_LATE)
#define harmless(v) late[v]
#else
#define harmless(v) (late[v] && (paused[v] || !running[v] && asked[v] == 0))
#endif

inline note_beat(n) {             /* heartbeat_at is another */
  expired[n] = false;
  if :: suspect[0] == n -> beaten[0] = true :: else fi;
#if WORKERS > 1
  if :: suspect[1] == n -> beaten[1] = true :: else fi
#endif
}

inline forget(w) {                /* an attempt */
  held[w] = 0; job[w] = 0; cause[w] = 0; verdict[w] = 0; running[w] = false
}

inline end_attempt(j, to) { status[j] = to; lease[j] = 0; holder[j] = 0; over[j] = false }

inline ask(w, j) {                /* a claim is sent, and has begun */
  open[w] = true; open_job[w] = j; open_number[w] = number[w]; asked[w] = 1; paused[w] = false;
#ifdef CLAIM_NO_RENEW
  renews[w] = false
#else
  renews[w] = late[w]; late[w] = false  /* its own timer counts from now on, if it comes to be */
#endif
}

inline wipe(w) {                  /* the process ends, and what it has started (guard); another is started */
  forget(w);
  asked[w] = 0; answer[w] = 0; suspicious[w] = false; unknown[w] = 0; unknown_job[w] = 0; draining[w] = false; late[w] = false;
  task[w] = 0; suspect[w] = NOBODY; beaten[w] = false; unnamed[w] = true; faulty[w] = false; paused[w] = false;
  if :: net[w] == FINE -> locked[number[w]] = false :: else fi   /* the server sees its connections go, else later */
}

inline start(w) {                 /* a claim's answer was read: Dispatcher.start */
  held[w] = answer[w]; job[w] = open_job[w]; running[w] = true;
  answer[w] = 0; asked[w] = 0; renews[w] = false;
#if WORKERS > 1
  /* none running on two workers at a time */
  assert(!(running[1 - w] && job[1 - w] == job[w] && !paused[1 - w] && !paused[w]))
#endif
}

inline settle(w) {                /* completeSQL, settleSQL */
  if
#ifdef SETTLE_BY_ID
  :: status[job[w]] == PROCESSING ->
#else
  :: status[job[w]] == PROCESSING && lease[job[w]] == held[w] ->
#endif
     assert(lease[job[w]] == held[w]);                                /* none by a stale holder, and so none twice */
     if
     :: verdict[w] == DONE -> end_attempt(job[w], FINAL)
     :: verdict[w] == RETRY && attempts[job[w]] >= ATTEMPTS -> end_attempt(job[w], FINAL)
     :: verdict[w] == RETRY && attempts[job[w]] < ATTEMPTS -> end_attempt(job[w], PENDING)
     :: verdict[w] == BACK -> assert(attempts[job[w]] > 0); attempts[job[w]]--; end_attempt(job[w], PENDING)
     :: verdict[w] == HOLD -> holder[job[w]] = 0; accepted[job[w]] = held[w]
     fi
  :: else -> skip
  fi
}

inline reap(j) {                  /* reapSQL */
  if
  :: attempts[j] >= ATTEMPTS -> end_attempt(j, FINAL)
  :: else -> end_attempt(j, PENDING)
  fi
}

inline lose_claim(w) {            /* suspect */
  asked[w] = 0; answer[w] = 0; late[w] = late[w] || renews[w]; suspicious[w] = true
}

/* claim.go, attempt.go, settle.go, heartbeat.go, dispatcher.go: all loops of one Dispatcher but the reaper. */
proctype sidecar(byte w)
{
  byte j;
end_sidecar:
  do
  /* registerSQL. A claim under way is heard first, and cancelled; the lock under the old number is gone before. */
#ifdef NO_WAIT
  :: d_step { reaches(w) && unnamed[w] ->
#else
  :: d_step { reaches(w) && unnamed[w] && asked[w] == 0 ->
#ifndef NO_CANCEL
       if :: running[w] -> cause[w] = LOST :: else fi;
#endif
#endif
       assert(!running[w] || cause[w] != 0);                          /* none running on a worker that knows that it lost its lease */
       locked[number[w]] = false;
       if :: row[number[w]] -> number[w] = number[w] + WORKERS :: else fi;
       assert(number[w] < NUMBERS);
       row[number[w]] = true; unnamed[w] = false; late[w] = false; faulty[w] = false; suspicious[w] = false }
  /* Announce, on the bell connection. */
  :: d_step { serves(w) && !locked[number[w]] -> locked[number[w]] = true }

  /* claimSQL, until it commits: a row locked, SKIP LOCKED; the worker's row, by a look or (renew) by an update. */
  :: d_step { may_claim(w) && claimable(w, 0) -> ask(w, 0) }
#if JOBS > 1
  :: d_step { may_claim(w) && claimable(w, 1) -> ask(w, 1) }
#endif
  /* Its commit, whatever has become of who sent it. */
  :: d_step { open[w] ->
       j = open_job[w]; leases++;
       status[j] = PROCESSING; lease[j] = leases; holder[j] = open_number[w] + 1; attempts[j]++;
       assert(attempts[j] <= ATTEMPTS);
       open[w] = false;
       if :: renews[w] -> note_beat(open_number[w]) :: else fi;
       if :: asked[w] == 1 -> asked[w] = 2; answer[w] = leases :: else -> renews[w] = false fi;
       j = 0 }
  :: d_step { reaches(w) && asked[w] == 2 -> start(w) }
  /* The answer is lost, or not waited for: suspect. */
  :: d_step { acts(w) && asked[w] > 0 && net[w] != FINE -> lose_claim(w) }
  :: d_step { reaches(w) && asked[w] > 0 && losses < LOSSES -> losses++; lose_claim(w) }

  /* The handler returns: Dispatcher.judge. */
  :: d_step { acts(w) && running[w] && cause[w] == LOST -> forget(w) }
  :: d_step { acts(w) && running[w] && cause[w] != LOST -> running[w] = false; verdict[w] = DONE }
  :: d_step { acts(w) && running[w] && cause[w] == 0 && retries < RETRIES -> retries++; running[w] = false; verdict[w] = RETRY }
  :: d_step { acts(w) && running[w] && (cause[w] == ENDING || cause[w] == SHUTDOWN) -> running[w] = false; verdict[w] = BACK }
  :: d_step { acts(w) && running[w] && cause[w] == 0 && holds < HOLDS -> holds++; running[w] = false; verdict[w] = HOLD }

  /* completeSQL, settleSQL; heard, or written again. */
  :: d_step { serves(w) && verdict[w] != 0 -> settle(w); forget(w) }
  :: d_step { serves(w) && verdict[w] != 0 && losses < LOSSES -> losses++; settle(w) }
  /* Given up: the database can't be reached, and the lease has ended. */
  :: d_step { acts(w) && !reaches(w) && verdict[w] != 0 && late[w] -> forget(w);
#ifndef GIVEN_UP
       suspicious[w] = true
#endif
     }

  /* beatSQL, where it matters. */
  :: d_step { serves(w) && beats(w) && lives(number[w]) ->
       note_beat(number[w]); late[w] = false; faulty[w] = false;
       paused[w] = false }
  :: d_step { serves(w) && beats(w) && lives(number[w]) && losses < LOSSES -> losses++; note_beat(number[w]) }
#ifdef BEAT_WHEN_DEAD
  :: d_step { serves(w) && !lives(number[w]) && held[w] != 0 && (late[w] || faulty[w]) -> late[w] = false; faulty[w] = false }
#else
  /* No row: declared dead. It cancels all and registers anew. */
  :: d_step { serves(w) && !lives(number[w]) ->
#ifndef NO_CANCEL
       cause[w] = (running[w] -> LOST : 0);
#endif
       unnamed[w] = true; faulty[w] = false }
#endif

  /* heldSQL: Dispatcher.compare, while no claim is under way. */
  :: d_step { serves(w) && lives(number[w]) && asked[w] == 0 && running[w] && cause[w] == 0 && lease[job[w]] != held[w] ->
       cause[w] = LOST }
#ifndef NO_COMPARE
  :: d_step { serves(w) && asked[w] == 0 && suspicious[w] && unknown[w] == 0 && strange(w, 0) ->
       unknown[w] = lease[0]; unknown_job[w] = 0 }
#if JOBS > 1
  :: d_step { serves(w) && asked[w] == 0 && suspicious[w] && unknown[w] == 0 && strange(w, 1) ->
       unknown[w] = lease[1]; unknown_job[w] = 1 }
#endif
#endif
  /* No claim is under way at the server for longer than one is looked for (suspicious). */
  :: d_step { serves(w) && asked[w] == 0 && suspicious[w] && unknown[w] == 0 && nothing_strange(w) -> suspicious[w] = false }
  /* releaseSQL */
  :: d_step { serves(w) && unknown[w] != 0 ->
       j = unknown_job[w];
       if
#ifdef RELEASE_BY_ID
       :: status[j] == PROCESSING ->
#else
       :: status[j] == PROCESSING && lease[j] == unknown[w] ->
#endif
          assert(lease[j] == unknown[w] && attempts[j] > 0);
          attempts[j]--; end_attempt(j, PENDING)
       :: else -> skip
       fi;
       unknown[w] = 0; unknown_job[w] = 0; j = 0 }

  /* Its own timer: the lease is about to end. Jobs are cancelled, whether or not the database can be reached. */
  :: d_step { !unnamed[w] && !late[w] && (idle(w) || stopped[w] || net[w] != FINE && asked[w] == 0) -> late[w] = true }
#ifndef NO_SELF_CANCEL
  :: d_step { acts(w) && late[w] && running[w] && cause[w] == 0 -> cause[w] = ENDING }
#endif

  /* Run, once its context is done: no claims; after the grace period, jobs are cancelled; unregisterSQL. */
  :: d_step { acts(w) && !unnamed[w] && !draining[w] && shutdowns < SHUTDOWNS -> shutdowns++; draining[w] = true; task[w] = 0 }
  :: d_step { acts(w) && draining[w] && running[w] && cause[w] == 0 -> cause[w] = SHUTDOWN }
  :: d_step { serves(w) && draining[w] && held[w] == 0 && asked[w] == 0 ->
#ifdef DELETES
       row[number[w]] = false;
#else
       row[number[w]] = holds_jobs(number[w]); dead[number[w]] = row[number[w]];
#endif
       wipe(w);
       if :: !row[number[w]] -> number[w] = number[w] + WORKERS :: else fi }
  /* It could not. */
  :: d_step { acts(w) && draining[w] && held[w] == 0 && asked[w] == 0 && net[w] != FINE -> wipe(w) }
  od
}

inline done_with(r) { task[r] = 0; suspect[r] = NOBODY; beaten[r] = false }

#ifdef NO_GRACE
#define absent(n) (!locked[n])
#else
#define absent(n) (!locked[n] && !young)
#endif
#ifdef ROWLESS_LIVES
#define suspected(n) (row[n] && (dead[n] || expired[n] || absent(n)))
#else
#define suspected(n) (!row[n] || dead[n] || expired[n] || absent(n))
#endif
#define looks(r, j) (serves(r) && !draining[r] && task[r] == 0 && status[j] == PROCESSING && holder[j] != 0 && \
  holder[j] != number[r] + 1 && suspected(holder[j] - 1))

inline look(r, j) {               /* suspectsSQL */
  suspect[r] = holder[j] - 1; beaten[r] = false;
  if
#ifdef ROWLESS_LIVES
  :: !row[suspect[r]] -> done_with(r)
#else
  :: !row[suspect[r]] -> task[r] = DEAD
#endif
  :: row[suspect[r]] && dead[suspect[r]] -> task[r] = DEAD
  :: lives(suspect[r]) && expired[suspect[r]] -> task[r] = CONVICTED
  :: lives(suspect[r]) && !expired[suspect[r]] && absent(suspect[r]) -> task[r] = WATCHED
  fi
}

/* Who can heartbeat has done so within dead_after, as it knows that its lock is gone. The server ends no session of a worker that
   is cut off before that has cancelled its jobs. */
#if defined(NO_FAST_BEATS) || defined(CUT_RESETS)
#define missed(r, n) true
#else
#define missed(r, n) (!is(n) || stopped[of(n)] || net[of(n)] == HUNG || beaten[r] || harmless(of(n)) && faulty[of(n)])
#endif

inline reap_of(n, j) {
  if
  :: status[j] == PROCESSING && holder[j] == n + 1 ->
     /* a healthy worker that reaches the database is never reaped */
     assert(!(is(n) && held[of(n)] == lease[j] && !faulty[of(n)] && !paused[of(n)]));
     reap(j)
  :: else -> skip
  fi
}

/* reaper.go */
proctype reaper(byte r)
{
end_reaper:
  do
  :: d_step { looks(r, 0) -> look(r, 0) }
#if JOBS > 1
  :: d_step { looks(r, 1) -> look(r, 1) }
#endif
  /* The next looks: the lock is there; or it has heartbeat, and is watched from now on; or it stays away for dead_after. */
  :: d_step { serves(r) && task[r] == WATCHED && (!absent(suspect[r]) || !holds_jobs(suspect[r])) -> done_with(r) }
  :: d_step { serves(r) && task[r] == WATCHED && beaten[r] -> beaten[r] = false }
  :: d_step { serves(r) && task[r] == WATCHED && absent(suspect[r]) && missed(r, suspect[r]) -> task[r] = CONVICTED }
  /* markDeadSQL: it waits for the worker's row, and sees a heartbeat since the look. */
  :: d_step { serves(r) && task[r] == CONVICTED && !renewing(suspect[r]) ->
       if
#ifdef NO_SECOND_LOOK
       :: lives(suspect[r]) ->
#else
       :: lives(suspect[r]) && !beaten[r] ->
#endif
          /* a healthy worker that reaches the database is never declared dead */
          assert(!(is(suspect[r]) && !faulty[of(suspect[r])] && !paused[of(suspect[r])]));
#ifndef NO_MARK
          dead[suspect[r]] = true;
#endif
          task[r] = DEAD
       :: else -> done_with(r)
       fi }
  /* reapWorkerSQL */
  :: d_step { serves(r) && task[r] == DEAD ->
       reap_of(suspect[r], 0);
#if JOBS > 1
       reap_of(suspect[r], 1);
#endif
       done_with(r) }
#ifndef REAP_NO_HELD
  /* reapHeldSQL */
  :: d_step { serves(r) && status[0] == PROCESSING && holder[0] == 0 && over[0] -> reap(0) }
#if JOBS > 1
  :: d_step { serves(r) && status[1] == PROCESSING && holder[1] == 0 && over[1] -> reap(1) }
#endif
#endif
  od
}

/* Has been given jobs to keep (202), and completes them, sooner or later or never: complete_job. */
proctype application()
{
  byte j;
end_application:
  do
  :: d_step { accepted[0] != 0 ->
       if
#ifdef COMPLETE_BY_ID
       :: status[0] == PROCESSING -> assert(lease[0] == accepted[0]);
#else
       :: status[0] == PROCESSING && lease[0] == accepted[0] ->
#endif
          end_attempt(0, FINAL)
       :: else -> skip
       fi;
       accepted[0] = 0 }
  :: d_step { accepted[0] != 0 -> accepted[0] = 0 }
  od
}

/* What others judge by: heartbeats grow old, held_until passes, the server grows older than a lease time; and the server notices
   that a connection is gone. */
proctype time(byte n)
{
end_time:
  do
  :: d_step { lives(n) && !expired[n] && (!is(n) || harmless(of(n)) && (faulty[of(n)] || paused[of(n)] || idle(of(n)))) -> expired[n] = true }
#ifdef CUT_RESETS
  :: d_step { locked[n] && (!is(n) || net[of(n)] == CUT) -> locked[n] = false }
#else
  :: d_step { locked[n] && (!is(n) || net[of(n)] == CUT && harmless(of(n))) -> locked[n] = false }
#endif
  od
}

#define aware(w) (net[w] != HUNG || unnamed[w] || harmless(w))
#define noticed (aware(0) && aware(WORKERS - 1))

proctype times()
{
end_times:
  do
  :: d_step { status[0] == PROCESSING && holder[0] == 0 && !over[0] -> over[0] = true }
#if JOBS > 1
  :: d_step { status[1] == PROCESSING && holder[1] == 0 && !over[1] -> over[1] = true }
#endif
  :: d_step { young && noticed -> young = false }
  od
}

/* What befalls a sidecar. */
proctype fate(byte w)
{
end_fate:
  do
  :: d_step { crashes < CRASHES -> crashes++; stopped[w] = false; wipe(w) }                 /* SIGKILL */
  :: d_step { stops < STOPS && !stopped[w] && !unnamed[w] -> stops++; stopped[w] = true; paused[w] = true }
  :: d_step { stopped[w] -> stopped[w] = false }
  :: d_step { cuts < CUTS && net[w] == FINE -> cuts++; net[w] = CUT; faulty[w] = true }
  :: d_step { net[w] != FINE -> net[w] = FINE }
  :: d_step { kills < KILLS && locked[number[w]] -> kills++; locked[number[w]] = false }    /* pg_terminate_backend */
  od
}

inline unsettle(w, hang) {        /* its sessions are gone, and it hears of that or not */
  faulty[w] = true; open[w] = false;
  if :: net[w] == FINE && hang -> net[w] = HUNG :: else fi;
  if :: asked[w] != 0 -> lose_claim(w) :: else -> renews[w] = false fi;
  if :: task[w] == WATCHED -> done_with(w) :: else fi
}

/* The server crashes, or another takes over: all sessions end, and their transactions and locks with them. */
inline restart_server(hang) {
  restarts++;
#ifndef PROMOTED
  young = true;
#endif
  n = 0;
  do :: n < NUMBERS -> locked[n] = false; n++ :: else -> break od;
  n = 0;
  unsettle(0, hang);
#if WORKERS > 1
  unsettle(1, false)
#endif
}

proctype restart()
{
  byte n;
end_restart:
  do
  :: d_step { restarts < RESTARTS -> restart_server(true) }
  :: d_step { restarts < RESTARTS -> restart_server(false) }
  od
}

/* From some moment on nothing of that kind befalls them. */
proctype peace()
{
  d_step { crashes = CRASHES; stops = STOPS; cuts = CUTS; restarts = RESTARTS; kills = KILLS; losses = LOSSES; shutdowns = SHUTDOWNS; retries = RETRIES; holds = HOLDS }
}

/* No job is lost, and each sidecar is back. */
proctype monitor()
{
  byte n;
end_monitor:
  timeout ->
    assert(status[0] == FINAL);
#if JOBS > 1
    assert(status[1] == FINAL);
#endif
    for (n : 0 .. WORKERS - 1) { assert(serves(n) && lives(number[n]) && held[n] == 0) }
}

init {
  byte n;
  atomic {
    for (n : 0 .. WORKERS - 1) {
      number[n] = n; unnamed[n] = true; suspect[n] = NOBODY;
      run sidecar(n); run reaper(n); run fate(n)
    }
    for (n : 0 .. NUMBERS - 1) { run time(n) }
    n = 0;
    run times(); run restart(); run peace(); run monitor();
#if HOLDS > 0
    run application()
#endif
  }
}
