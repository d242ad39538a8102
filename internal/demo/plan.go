package demo

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// The job types of the application, one for each way to run a job.
const (
	typeMail    = "send_email"    // webhook
	typeImage   = "resize_image"  // subprocess
	typePayment = "book_payment"  // sqlfunc
	typeIndex   = "update_search" // Go
)

// ways in the order in which they are shown.
var ways = []struct{ jobType, way string }{
	{typeMail, "webhook"}, {typeImage, "subprocess"}, {typePayment, "sqlfunc"}, {typeIndex, "Go"},
}

// shape is the way in which a scenario's jobs get into the table.
type shape int

const (
	shapeSingle    shape = iota // one INSERT
	shapeDuplicate              // a second INSERT with the unique_key of a waiting job, which is refused
	shapeBulk                   // one INSERT ... SELECT of many
	shapeSavepoint              // three INSERTs in a transaction, the second one undone by ROLLBACK TO SAVEPOINT
	shapeAborted                // an INSERT in a transaction that is rolled back
)

// scenario is what happens to a job in the demo, and how often.
type scenario struct {
	name      string
	jobType   string
	weight    int
	shape     shape
	delayed   bool
	fails     int  // attempts that fail before one succeeds
	hopeless  bool // every attempt fails
	permanent bool // the first attempt fails for good
}

// scenarios in the order in which they open the demo; then each comes up as often as its weight says.
var scenarios = []scenario{
	{name: "plain", jobType: typeIndex, weight: 16},
	{name: "plain", jobType: typeMail, weight: 16},
	{name: "plain", jobType: typePayment, weight: 12},
	{name: "plain", jobType: typeImage, weight: 6},
	{name: "delayed", jobType: typeMail, weight: 3, delayed: true},
	{name: "delayed", jobType: typeImage, weight: 2, delayed: true},
	{name: "delayed", jobType: typePayment, weight: 2, delayed: true},
	{name: "delayed", jobType: typeIndex, weight: 3, delayed: true},
	{name: "duplicate", jobType: typeMail, weight: 2, shape: shapeDuplicate},
	{name: "duplicate", jobType: typePayment, weight: 2, shape: shapeDuplicate},
	{name: "flaky", jobType: typeMail, weight: 3, fails: 2},
	{name: "flaky", jobType: typeImage, weight: 1, fails: 1},
	{name: "flaky", jobType: typePayment, weight: 2, fails: 2},
	{name: "flaky", jobType: typeIndex, weight: 3, fails: 1},
	{name: "hopeless", jobType: typeMail, weight: 1, hopeless: true},
	{name: "hopeless", jobType: typeImage, weight: 1, hopeless: true},
	{name: "hopeless", jobType: typePayment, weight: 1, hopeless: true},
	{name: "hopeless", jobType: typeIndex, weight: 1, hopeless: true},
	{name: "permanent", jobType: typeMail, weight: 1, permanent: true},
	{name: "permanent", jobType: typeImage, weight: 1, permanent: true},
	{name: "permanent", jobType: typePayment, weight: 1, permanent: true},
	{name: "permanent", jobType: typeIndex, weight: 1, permanent: true},
	{name: "savepoint", jobType: typePayment, weight: 2, shape: shapeSavepoint},
	{name: "aborted", jobType: typeIndex, weight: 1, shape: shapeAborted},
	{name: "bulk", jobType: typeIndex, weight: 1, shape: shapeBulk},
}

const (
	// A short backoff, so that a demo of a few seconds sees its retries through.
	backoffBase   = 100 * time.Millisecond
	backoffFactor = 2
	backoffJitter = 0.1

	shortestDelay = 200 * time.Millisecond
	longestDelay  = 3 * time.Second
	bulkRows      = 20
	// slack is the time that a job may need beyond its delay and backoffs, on a busy machine.
	slack = 400 * time.Millisecond
)

// batch is one act of the stream: a scenario and the jobs that it inserts.
type batch struct {
	scenario scenario
	jobs     []plannedJob
}

// plannedJob is a row to be inserted.
type plannedJob struct {
	number   int64 // "demo" in the payload: no two jobs of a run share one
	jobType  string
	scenario string
	payload  payload
	priority int
	delay    time.Duration
	// maxAttempts 0 and uniqueKey "" leave the columns out.
	maxAttempts int
	uniqueKey   string
	want        expectation
}

// payload of the stream's jobs: what the application's handlers read.
type payload struct {
	Demo      int64  `json:"demo"`
	To        string `json:"to,omitempty"`
	Fails     int    `json:"fails,omitempty"`
	Permanent bool   `json:"permanent,omitempty"`
}

// expectation is what must be found of a job at the end.
type expectation struct {
	status   string
	attempts int // as counted by the row and as seen by the application
	errors   int // rows in job_errors
	effects  int // rows that its SQL function wrote
}

// plan deals the batches of a stream: first every scenario once, then all of them, evenly mixed by weight.
type plan struct {
	random *rand.Rand
	opened int
	credit []int
	number int64
}

func newPlan(seed uint64) *plan {
	return &plan{random: rand.New(rand.NewPCG(seed, 0)), credit: make([]int, len(scenarios))}
}

// next returns a batch whose jobs end within left, and false if there is none. A left of 0 or less means no limit.
func (p *plan) next(left time.Duration, limited bool) (batch, bool) {
	for p.opened < len(scenarios) {
		s := scenarios[p.opened]
		p.opened++
		if !limited || s.shortest() <= left {
			return p.batch(s, left, limited), true
		}
	}
	best, total := -1, 0
	for i, s := range scenarios {
		if limited && s.shortest() > left {
			continue
		}
		p.credit[i] += s.weight
		total += s.weight
		if best < 0 || p.credit[i] > p.credit[best] {
			best = i
		}
	}
	if best < 0 {
		return batch{}, false
	}
	p.credit[best] -= total
	return p.batch(scenarios[best], left, limited), true
}

// shortest is the time after which a job of the scenario has surely ended, if its delay is the shortest.
func (s scenario) shortest() time.Duration {
	total := slack
	if s.delayed {
		total += shortestDelay
	}
	if s.shape == shapeDuplicate {
		total += duplicateDelay
	}
	wait := float64(backoffBase) * (1 + backoffJitter)
	for range s.failures() {
		total += time.Duration(wait)
		wait *= backoffFactor
	}
	return total
}

const (
	hopelessAttempts = 2
	// duplicateDelay keeps a job waiting while its duplicates are tried.
	duplicateDelay = time.Second
)

// failures is how many attempts fail and are followed by another.
func (s scenario) failures() int {
	if s.hopeless {
		return hopelessAttempts - 1
	}
	return s.fails
}

func (p *plan) batch(s scenario, left time.Duration, limited bool) batch {
	count := 1
	switch s.shape {
	case shapeDuplicate:
		count = 2
	case shapeSavepoint:
		count = 3
	case shapeBulk:
		count = bulkRows
	}
	dealt := batch{scenario: s}
	for range count {
		dealt.jobs = append(dealt.jobs, p.job(s))
	}
	if s.delayed {
		longest := longestDelay
		if limited {
			longest = min(longest, left-s.shortest()+shortestDelay)
		}
		dealt.jobs[0].delay = shortestDelay + time.Duration(p.random.Int64N(int64(longest-shortestDelay)+1))
	}
	if s.shape == shapeDuplicate {
		for i := range dealt.jobs {
			dealt.jobs[i].uniqueKey = fmt.Sprintf("order-%d", dealt.jobs[0].number)
			dealt.jobs[i].delay = duplicateDelay
		}
	}
	return dealt
}

// priorities that jobs get: most have none.
var priorities = []int{0, 0, 0, 0, 0, -5, 5, 10}

var recipients = []string{"ada@example.com", "grace@example.com", "linus@example.com", "Zoë@example.com"}

func (p *plan) job(s scenario) plannedJob {
	p.number++
	job := plannedJob{
		number: p.number, jobType: s.jobType, scenario: s.name,
		payload: payload{Demo: p.number, Fails: s.fails, Permanent: s.permanent},
		want:    expectation{status: statusCompleted, attempts: s.fails + 1, errors: s.fails},
	}
	if s.jobType == typeMail {
		job.payload.To = recipients[p.random.IntN(len(recipients))]
	}
	switch {
	case s.hopeless:
		job.payload.Fails = 1_000_000
		job.maxAttempts = hopelessAttempts
		job.want = expectation{status: statusFailed, attempts: hopelessAttempts, errors: hopelessAttempts}
	case s.permanent:
		job.want = expectation{status: statusFailed, attempts: 1, errors: 1}
	case s.jobType == typePayment:
		job.want.effects = 1
	}
	if s.shape != shapeBulk {
		job.priority = priorities[p.random.IntN(len(priorities))]
	}
	return job
}
