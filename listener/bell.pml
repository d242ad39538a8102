/* The bell: no wake-up is lost, although nobody polls here but for a row that a claim has passed over. doc.go tells the
   protocol, whose names and steps are used; .ci/model runs this, whole and with each switch, which leaves out one step and
   must be caught.

   Each sidecar is four actors: the Dispatcher with Sleep (sidecar), the ear, which acts when a ring is delivered (deliver), the
   bell connection (bell), whose steps depend on what is stored alone, as those of keepSleepers do, and what may befall it
   (fate). An awake sidecar is one that waits for S: that it polls meanwhile is left out, as it could only find more.

   TRANSACTIONS insert rows or update them to be pending, which the trigger treats alike, in one of the shapes SHAPES.

   Switches, each of which leaves something out:
   NO_BARRIER        (2) is left out                         PROBE_FIRST     the trigger looks at S before it takes U
   NO_RECHECK        (3) is left out                         NOT_THOROUGH    (3) doesn't look for rows that others have locked
   NO_LOOK           nor does the Dispatcher, before Sleep
   DEAF_BELL         the bell connection isn't being read    NO_TOKEN        letting S go doesn't ring
   RELEASE_FIRST     S counts as held until it is released   NO_WATCH        the ends of transactions watched don't ring
   NO_NEWS           being heard again changes nothing       PREPARED_GONE   a holder that was prepared counts as ended
   RESUME_ASKS       resuming a type asks S, but takes no U
   SAVEPOINT_TAKES_ALL   rolling back a savepoint gives back U as a whole */

#ifndef WORKERS
#define WORKERS 1
#endif
#ifndef TRANSACTIONS
#define TRANSACTIONS 2
#endif
#ifndef SHAPES
#define SHAPES 1      /* 1: one statement; 2: and savepoints; 3: and two-phase commits */
#endif
/* MET: inserts may ring without having taken U, whoever sleeps */
#ifndef CUTS
#define CUTS 1        /* times that a bell connection is cut */
#endif
#ifndef DEAFS
#define DEAFS 0       /* times that a LISTEN connection is cut */
#endif
#ifndef CRASHES
#define CRASHES 0     /* times that a sidecar is killed and restarted */
#endif
#ifndef LEAVES
#define LEAVES 1      /* times that S is let go without a ring: the queue of notifications fills up */
#endif
#ifndef RUSHES
#define RUSHES 1      /* times that it is for a ring: they come too fast, or to a Dispatcher that is busy */
#endif

/* The database. */
byte pending = 0;                 /* committed rows, due, unlocked */
byte locked = 0;                  /* committed rows, due, locked by a claim or a stranger that may yet let go */
byte paused = 0;                  /* committed rows of a type that is paused */
byte sleepers = 0;                /* sessions that hold S */
bool holds_s[WORKERS];
bool listening[WORKERS];
bool holds_u[TRANSACTIONS];
bool prepared[TRANSACTIONS];      /* it has another name now */

/* A sidecar: slumber, and what its bell connection knows. */
bool token[WORKERS];              /* on Rings */
bool wanted[WORKERS];
bool held[WORKERS];
bool owed[WORKERS];               /* rows were not looked for in this state: its mark differs */
bool heard[WORKERS];
bool alive[WORKERS];              /* its bell connection */
bool reading[WORKERS];            /* S is taken, U's holders are about to be read */
typedef watch { bool u[TRANSACTIONS] };
watch watched[WORKERS];

byte cuts = 0, deafs = 0, crashes = 0, leaves = 0, rushes = 0;

inline drop(w) { if :: holds_s[w] -> holds_s[w] = false; sleepers-- :: else fi }

inline tell(w) {                  /* the Dispatcher may believe itself asleep, and isn't from now on */
#ifdef NO_TOKEN
  skip
#else
  token[w] = true
#endif
}

inline forget(w) {                /* slumber.end, and what goes with it */
  wanted[w] = false; held[w] = false; reading[w] = false;
  watched[w].u[0] = false;
#if TRANSACTIONS > 1
  watched[w].u[1] = false;
#endif
}

inline crash(w) { forget(w); drop(w); token[w] = false; owed[w] = true; alive[w] = true; listening[w] = true; heard[w] = true }

#ifdef PREPARED_GONE
#define gone(t) (!holds_u[t] || prepared[t])
#else
#define gone(t) (!holds_u[t])
#endif

inline ended(w, t) {
  watched[w].u[t] = false;
#ifndef NO_WATCH
  token[w] = true;
#endif
#if TRANSACTIONS > 1
  if :: !watched[w].u[0] && !watched[w].u[1] -> owed[w] = true :: else fi
#else
  owed[w] = true
#endif
}

inline let_go(w) { wanted[w] = false; tell(w) }

inline deliver() {                /* to each session that listens; the ear may find that rings come too fast */
  w = 0;
  do
  :: w < WORKERS ->
     if
     :: atomic { listening[w] -> token[w] = true };
        if
        :: atomic { wanted[w] && rushes < RUSHES -> rushes++; wanted[w] = false; token[w] = true }
        :: true
        fi
     :: atomic { !listening[w] }
     fi;
     w++
  :: else -> break
  od;
  w = 0
}

inline statement() {              /* the trigger; loud says whether it rings */
#ifdef PROBE_FIRST
  loud = (sleepers > 0);
  holds_u[me] = true;
#else
  if
  :: holds_u[me] = true; loud = (sleepers > 0)
#ifdef MET
  :: loud = true                  /* it met a sidecar's try of U */
#endif
  fi
#endif
}

inline end_of_transaction(rows) { /* rows can be seen, then locks go, then listeners hear */
  if
  :: pending = pending + rows
  :: rows = 0; loud = false       /* rolled back */
  fi;
  d_step { holds_u[me] = false; prepared[me] = false };
  if :: loud -> loud = false; deliver() :: else fi;
  rows = 0
}

proctype transaction(byte me)
{
  bool loud = false, before = false; byte w = 0, rows = 0;
  if
  :: statement(); rows = 1
#if SHAPES >= 2
  :: statement();                                     /* inside of a savepoint, which is rolled back, */
     d_step { holds_u[me] = false; loud = false };
     statement(); rows = 1                            /* and another after it */
  :: statement(); rows = 1; before = loud;            /* one, and another inside of a savepoint */
     statement();
     d_step {
       loud = before;
#ifdef SAVEPOINT_TAKES_ALL
       holds_u[me] = false
#endif
     }
#endif
#if SHAPES >= 3
  :: statement();                                     /* two-phase: only what is silent can be prepared */
     if
     :: loud -> loud = false
     :: else -> rows = 1; prepared[me] = true
     fi
#endif
  fi;
  end_of_transaction(rows)
}

/* Resumes a type: its row is there, and was passed over by all claims. It always rings. */
proctype resumer()
{
  byte w = 0; bool loud = true;
#ifdef RESUME_ASKS
  loud = (sleepers > 0);
#endif
  d_step { pending = pending + paused; paused = 0 };
  if :: loud -> deliver() :: else fi
}

/* Locks a pending row, changes nothing, and lets go: no trigger fires. */
proctype stranger()
{
  if
  :: d_step { pending > 0 -> pending--; locked++ };
     d_step { locked--; pending++ }
  :: true
  fi
}

inline claim() {                  /* FOR NO KEY UPDATE SKIP LOCKED; it may fail */
  d_step { got = pending; pending = 0; locked = locked + got; bad = false };
  if
  :: locked = locked - got
  :: got > 0 -> d_step { locked = locked - got; pending = pending + got; got = 0; bad = true }
  fi
}

proctype sidecar(byte me)
{
  byte got = 0; bool bad = false;
awake:
  claim();
  if :: got > 0 || bad -> got = 0; bad = false; goto awake :: else fi;
#ifndef NO_LOOK
  if :: pending + locked > 0 -> goto awake :: else fi;                      /* due, and locked by somebody else */
#endif
sleep:
  if
  :: !heard[me] -> goto rest
  :: heard[me] && wanted[me] && held[me] -> goto stands                     /* waiting for U's holders or not */
  :: heard[me] && !wanted[me] -> wanted[me] = true; goto sleep              /* has been quiet: (1), by the bell connection */
  :: d_step { crashes < CRASHES -> crashes++; crash(me) }; goto awake
  fi;
stands:
  if
  :: d_step { owed[me] -> owed[me] = false; token[me] = false }
  :: !owed[me] -> goto rest
  fi;
#ifndef NO_RECHECK
  claim();                                                                  /* (3) */
  if :: got > 0 || bad -> got = 0; bad = false; owed[me] = true; goto awake :: else fi;
#ifndef NOT_THOROUGH
  if :: pending + locked > 0 -> owed[me] = true; goto awake :: else fi;
#endif
#endif
  goto sleep;
rest:
end_rest:
  if
  :: d_step { token[me] -> token[me] = false }; goto awake                  /* (4) */
  :: d_step { crashes < CRASHES -> crashes++; crash(me) }; goto awake
  fi
}

/* What the bell connection does next, by what is stored alone. */
proctype bell(byte w)
{
  byte i;
end_bell:
  do
  :: d_step { wanted[w] && heard[w] && alive[w] && !held[w] && !reading[w] ->
       if :: !holds_s[w] -> holds_s[w] = true; sleepers++ :: else fi; reading[w] = true }          /* (1) */
  :: d_step { wanted[w] && alive[w] && reading[w] && holds_s[w] ->                                 /* (2) one look at pg_locks */
       reading[w] = false; held[w] = true; owed[w] = true;
#ifndef NO_BARRIER
       i = 0; do :: i < TRANSACTIONS -> watched[w].u[i] = holds_u[i]; i++ :: else -> break od; i = 0
#endif
     }
  :: d_step { wanted[w] && held[w] && alive[w] && watched[w].u[0] && gone(0) -> ended(w, 0) }
#if TRANSACTIONS > 1
  :: d_step { wanted[w] && held[w] && alive[w] && watched[w].u[1] && gone(1) -> ended(w, 1) }
#endif
#ifdef RELEASE_FIRST
  :: d_step { (!wanted[w] || !heard[w]) && alive[w] && (wanted[w] || held[w] || reading[w]) -> drop(w) };
     d_step { if :: !wanted[w] || !heard[w] -> forget(w); token[w] = true :: else -> skip fi }
#else
  :: d_step { (!wanted[w] || !heard[w]) && alive[w] && (wanted[w] || held[w] || reading[w]) -> forget(w); tell(w) };
     d_step { if :: alive[w] -> drop(w) :: else fi }
#endif
  :: d_step { leaves < LEAVES && wanted[w] -> leaves++; let_go(w) }
#ifndef DEAF_BELL
  :: d_step { !alive[w] -> forget(w); token[w] = true; heard[w] = false };
     d_step { alive[w] = true; heard[w] = listening[w]; owed[w] = true; token[w] = true }
#endif
  od
}

/* The connections of a sidecar are cut; a cut LISTEN connection loses what was on the way. */
proctype fate(byte w)
{
end_fate:
  do
  :: d_step { cuts < CUTS && alive[w] -> cuts++; alive[w] = false; drop(w) }
  :: d_step { deafs < DEAFS && listening[w] -> deafs++; listening[w] = false };
     d_step { heard[w] = false; token[w] = true };
#ifdef NO_NEWS
     d_step { listening[w] = true; heard[w] = true }
#else
     d_step { listening[w] = true; token[w] = true };
     d_step { heard[w] = true; token[w] = true; owed[w] = true }
#endif
  od
}

/* From some moment on nothing of that kind befalls them. */
proctype peace() { d_step { cuts = CUTS; deafs = DEAFS; crashes = CRASHES; leaves = LEAVES } }

proctype monitor() { end_monitor: timeout -> assert(pending + locked == 0) }

init {
  byte w;
  atomic {
    w = 0;
    do
    :: w < WORKERS ->
       listening[w] = true; heard[w] = true; alive[w] = true; owed[w] = true;
       run sidecar(w); run bell(w); run fate(w); w++
    :: else -> break
    od;
    w = 0;
    do :: w < TRANSACTIONS -> run transaction(w); w++ :: else -> break od;
#ifdef STRANGER
    run stranger();
#endif
#ifdef RESUMER
    paused = 1; run resumer();
#endif
    run peace(); run monitor()
  }
}
