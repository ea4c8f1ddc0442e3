package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

const (
	enqueue  = "/reprise.v1.BrokerService/Enqueue"
	complete = "/reprise.v1.BrokerService/Complete"
	failVerb = "/reprise.v1.BrokerService/Fail"
)

// Work is what many lease streams do, each over a connection of its own, as from as many workers.
type Work struct {
	Subscriptions []string   `json:"subscriptions"` // base64: the first message of each stream
	Producers     [][]string `json:"producers"`     // base64: what each of them calls Enqueue with, one call after the other
	Calls         int        `json:"calls"`         // of each producer, over its requests again and again
	Jobs          int        `json:"jobs"`          // to be completed until the end
	FailUntil     int64      `json:"fail_until"`    // attempts below this one fail
	Failure       string     `json:"failure"`       // base64: with what
	Message       string     `json:"message"`       // with this and the job's id as its message; empty: all failures are alike
	Arrivals      bool       `json:"arrivals"`      // say when each lease came
}

// Worked is what it prints of them.
type Worked struct {
	Completed []int64    `json:"completed"` // jobs, by stream
	Messages  int64      `json:"messages"`  // with leases
	Arrivals  [][2]int64 `json:"arrivals"`  // job, and the instant in nanoseconds since 1970
}

// workAll opens the streams, prints a line when it has, waits for a line, and returns when all jobs are completed.
func workAll(task Task) (*Worked, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	failure, err := base64.StdEncoding.DecodeString(task.Work.Failure)
	if err != nil {
		return nil, err
	}
	goal := &goal{left: int64(task.Work.Jobs), reached: make(chan struct{})}
	workers := make([]*worker, len(task.Work.Subscriptions))
	for number, subscription := range task.Work.Subscriptions {
		workers[number] = &worker{work: task.Work, failure: failure, goal: goal, stop: cancel}
		if err := workers[number].open(ctx, task.Address, subscription); err != nil {
			return nil, err
		}
	}
	fmt.Println("ready")
	if _, err := input.ReadString('\n'); err != nil {
		return nil, err
	}
	for _, requests := range task.Work.Producers {
		go produce(ctx, task, requests, cancel)
	}
	select {
	case <-goal.reached:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	worked := &Worked{Completed: make([]int64, len(workers))}
	for number, worker := range workers {
		worked.Completed[number] = worker.completed.Load()
		worked.Messages += worker.messages.Load()
		worker.lock.Lock()
		worked.Arrivals = append(worked.Arrivals, worker.arrivals...)
		worker.lock.Unlock()
	}
	return worked, nil
}

// goal is how many jobs are still to be completed.
type goal struct {
	left    int64
	reached chan struct{}
}

func (goal *goal) count(done int64) {
	left := atomic.AddInt64(&goal.left, -done)
	if left <= 0 && left+done > 0 {
		close(goal.reached)
	}
}

func produce(ctx context.Context, task Task, requests []string, stop context.CancelCauseFunc) {
	connection, err := connect(task.Address)
	if err != nil {
		stop(err)
		return
	}
	defer connection.Close()
	decoded := make([][]byte, len(requests))
	for number, request := range requests {
		if decoded[number], err = base64.StdEncoding.DecodeString(request); err != nil {
			stop(err)
			return
		}
	}
	for number := range task.Work.Calls {
		var answer []byte
		if err := connection.Invoke(ctx, enqueue, &decoded[number%len(decoded)], &answer); err != nil {
			stop(err)
			return
		}
	}
}

// worker has one lease stream, and says what became of leases as soon as they have come.
type worker struct {
	work       *Work
	failure    []byte
	goal       *goal
	stop       context.CancelCauseFunc
	connection *grpc.ClientConn
	stream     grpc.ClientStream
	completed  atomic.Int64
	messages   atomic.Int64
	lock       sync.Mutex // of writes to the stream, and of arrivals
	arrivals   [][2]int64
}

func (worker *worker) open(ctx context.Context, address, subscription string) error {
	first, err := base64.StdEncoding.DecodeString(subscription)
	if err != nil {
		return err
	}
	if worker.connection, err = connect(address); err != nil {
		return err
	}
	description := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	if worker.stream, err = worker.connection.NewStream(ctx, description, lease); err != nil {
		return err
	}
	if err := worker.stream.SendMsg(&first); err != nil {
		return err
	}
	go worker.run(ctx)
	return nil
}

func (worker *worker) run(ctx context.Context) {
	for {
		var message []byte
		if err := worker.stream.RecvMsg(&message); err != nil {
			worker.stop(err)
			return
		}
		at := time.Now().UnixNano()
		leases, err := readLeases(message)
		if err != nil {
			worker.stop(err)
			return
		}
		if len(leases) > 0 { // without any it is a sign of life
			worker.messages.Add(1)
			go worker.finish(ctx, leases, at)
		}
	}
}

// finish ends leases that came together, and gives as many credits.
func (worker *worker) finish(ctx context.Context, leases []leased, at int64) {
	var last, early []leased
	for _, one := range leases {
		if one.attempt < worker.work.FailUntil {
			early = append(early, one)
		} else {
			last = append(last, one)
		}
	}
	if worker.work.Arrivals {
		worker.lock.Lock()
		for _, one := range leases {
			worker.arrivals = append(worker.arrivals, [2]int64{one.jobID, at})
		}
		worker.lock.Unlock()
	}
	if len(early) > 0 {
		if err := worker.report(ctx, failVerb, failRequest(early, worker.failure, worker.work.Message), len(early)); err != nil {
			worker.stop(err)
			return
		}
	}
	if len(last) > 0 {
		if err := worker.report(ctx, complete, completeRequest(last), len(last)); err != nil {
			worker.stop(err)
			return
		}
	}
	credits := creditsRequest(len(leases))
	worker.lock.Lock()
	err := worker.stream.SendMsg(&credits)
	worker.lock.Unlock()
	if err != nil {
		worker.stop(err)
		return
	}
	worker.completed.Add(int64(len(last)))
	worker.goal.count(int64(len(last)))
}

func (worker *worker) report(ctx context.Context, method string, request []byte, leases int) error {
	var answer []byte
	if err := worker.connection.Invoke(ctx, method, &request, &answer); err != nil {
		return err
	}
	well, err := countOK(answer)
	if err == nil && well != leases {
		err = fmt.Errorf("%s: %d of %d leases were ended", method, well, leases)
	}
	return err
}
