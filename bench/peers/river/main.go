// River as a peer: enqueues and works no-op jobs in one process, and says when each stretch begins and ends.
//
// In its best documented configuration: batches go in by InsertManyFast, fetches come as often as the library allows, with thousands of
// workers. It keeps one row for each job, updated in place, and no log of events; it talks to PostgreSQL without a server in between.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
)

const (
	maxWorkers    = 2000
	fetchCooldown = time.Millisecond
	fetchPoll     = 10 * time.Millisecond
	producers     = 2
	maxAttempts   = 3
	retryDelay    = 100 * time.Millisecond
)

var input = bufio.NewReader(os.Stdin)

// Task is what the program is told on its command line.
type Task struct {
	DatabaseURL string  `json:"database_url"`
	Figure      string  `json:"figure"`
	Jobs        int     `json:"jobs"`
	Batch       int     `json:"batch"`
	Payload     string  `json:"payload"`
	Callers     int     `json:"callers"`
	SpreadSecs  float64 `json:"spread_seconds"` // of the retries whose lateness is measured
}

type noop struct {
	Payload string `json:"payload"`
}

func (noop) Kind() string { return "noop" }

type worker struct {
	river.WorkerDefaults[noop]
	handle func(job *rivertype.JobRow) error
	delay  func() time.Duration
}

func (w *worker) Work(_ context.Context, job *river.Job[noop]) error { return w.handle(job.JobRow) }

func (w *worker) NextRetry(*river.Job[noop]) time.Time { return time.Now().Add(w.delay()) }

var errFlaky = errors.New("fails on purpose")

type bench struct {
	task    Task
	pool    *pgxpool.Pool
	client  *river.Client[pgx.Tx]
	worker  *worker
	handled atomic.Int64
}

func main() {
	var task Task
	must(json.Unmarshal([]byte(os.Args[1]), &task))
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, task.DatabaseURL)
	must(err)
	b := &bench{task: task, pool: pool}
	b.open(ctx)
	switch task.Figure {
	case "batches":
		b.batches(ctx)
	case "mixed":
		b.mixed(ctx)
	case "one by one":
		b.oneByOne(ctx)
	case "start":
		b.start(ctx)
	case "retry lateness":
		b.retryLateness(ctx)
	case "retry path":
		b.retryPath(ctx)
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func say(message map[string]any) { must(json.NewEncoder(os.Stdout).Encode(message)) }

func begin() { say(map[string]any{"begin": true}) }

// end waits for a line: until then the process is metered.
func end(figure string, jobs int) {
	say(map[string]any{"end": figure, "jobs": jobs})
	_, err := input.ReadString('\n')
	must(err)
}

// open brings the schema up to date and empties it.
func (b *bench) open(ctx context.Context) {
	driver := riverpgxv5.New(b.pool)
	migrator, err := rivermigrate.New(driver, nil)
	must(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	must(err)
	_, err = b.pool.Exec(ctx, "TRUNCATE river_job")
	must(err)
	b.worker = &worker{
		handle: func(*rivertype.JobRow) error { b.handled.Add(1); return nil },
		delay:  func() time.Duration { return retryDelay },
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, b.worker)
	b.client, err = river.NewClient(driver, &river.Config{
		FetchCooldown:     fetchCooldown,
		FetchPollInterval: fetchPoll,
		Logger:            slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError + 1})),
		MaxAttempts:       maxAttempts,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: maxWorkers}},
		Workers:           workers,
	})
	must(err)
}

func (b *bench) fill(ctx context.Context) {
	params := make([]river.InsertManyParams, b.task.Batch)
	for i := range params {
		params[i].Args = noop{b.task.Payload}
	}
	var group sync.WaitGroup
	for range producers {
		group.Add(1)
		go func() {
			defer group.Done()
			for range b.task.Jobs / producers / b.task.Batch {
				_, err := b.client.InsertManyFast(ctx, params)
				must(err)
			}
		}()
	}
	group.Wait()
}

// finish returns when every job was handled so often, and its end is in the database.
func (b *bench) finish(ctx context.Context, attempts int) {
	for b.handled.Load() < int64(b.task.Jobs*attempts) {
		time.Sleep(time.Millisecond)
	}
	for unfinished := 1; unfinished > 0; time.Sleep(time.Millisecond) {
		row := b.pool.QueryRow(ctx, "SELECT count(*) FROM (SELECT 1 FROM river_job WHERE state <> 'completed' LIMIT 1) u")
		must(row.Scan(&unfinished))
	}
}

func (b *bench) batches(ctx context.Context) {
	begin()
	b.fill(ctx)
	end("enqueue", b.task.Jobs)
	b.analyze(ctx)
	begin()
	must(b.client.Start(ctx))
	b.finish(ctx, 1)
	end("burn-down", b.task.Jobs)
}

// analyze lets no plan be made for a table that was empty a moment ago.
func (b *bench) analyze(ctx context.Context) {
	_, err := b.pool.Exec(ctx, "ANALYZE river_job")
	must(err)
}

func (b *bench) mixed(ctx context.Context) {
	must(b.client.Start(ctx))
	begin()
	b.fill(ctx)
	b.finish(ctx, 1)
	end("mixed lifecycles", b.task.Jobs)
}

func (b *bench) oneByOne(ctx context.Context) {
	begin()
	var group sync.WaitGroup
	for range b.task.Callers {
		group.Add(1)
		go func() {
			defer group.Done()
			for range b.task.Jobs / b.task.Callers {
				_, err := b.client.Insert(ctx, noop{b.task.Payload}, nil)
				must(err)
			}
		}()
	}
	group.Wait()
	end("enqueue, one job per call", b.task.Jobs/b.task.Callers*b.task.Callers)
}

func (b *bench) start(ctx context.Context) {
	arrived := make(chan time.Time)
	b.worker.handle = func(*rivertype.JobRow) error { arrived <- time.Now(); return nil }
	must(b.client.Start(ctx))
	time.Sleep(time.Second)
	waits := make([]float64, 0, b.task.Jobs)
	for range b.task.Jobs {
		time.Sleep(5*time.Millisecond + time.Duration(rand.Int64N(int64(20*time.Millisecond))))
		started := time.Now()
		_, err := b.client.Insert(ctx, noop{b.task.Payload}, nil)
		must(err)
		waits = append(waits, float64((<-arrived).Sub(started).Microseconds())/1000)
	}
	say(map[string]any{"waits": "enqueue to start, at rest", "milliseconds": waits})
}

func (b *bench) retryLateness(ctx context.Context) {
	late := make(chan float64, b.task.Jobs)
	b.worker.delay = func() time.Duration { return time.Duration(rand.Float64() * b.task.SpreadSecs * float64(time.Second)) }
	b.worker.handle = func(job *rivertype.JobRow) error {
		if job.Attempt == 1 {
			return errFlaky
		}
		late <- float64(time.Since(job.ScheduledAt).Microseconds()) / 1000
		return nil
	}
	b.fill(ctx)
	must(b.client.Start(ctx))
	waits := make([]float64, 0, b.task.Jobs)
	for range b.task.Jobs / producers / b.task.Batch * producers * b.task.Batch {
		waits = append(waits, <-late)
	}
	say(map[string]any{"waits": "retry lateness, at rest", "milliseconds": waits})
}

func (b *bench) retryPath(ctx context.Context) {
	b.worker.handle = func(job *rivertype.JobRow) error {
		b.handled.Add(1)
		if job.Attempt < maxAttempts {
			return errFlaky
		}
		return nil
	}
	b.fill(ctx)
	b.analyze(ctx)
	begin()
	must(b.client.Start(ctx))
	b.finish(ctx, maxAttempts)
	end("retry path", b.task.Jobs*maxAttempts)
}
