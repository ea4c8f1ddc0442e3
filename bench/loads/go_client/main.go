// The client drives a gRPC server and prints what it got as JSON: one job per call, from many connections as fast as it can, or one at a
// time to a lease stream that waits for it; or many lease streams at work.
//
// It costs little, as it shares the machine with what it measures: requests are bytes that were built once, answers are read only as far as
// needed. It knows no generated code.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// Task is what the program is told, a line of JSON.
type Task struct {
	Address     string  `json:"address"`
	Leasing     string  `json:"leasing"`     // the address of the lease stream; none: calls as fast as it can
	Subscribe   string  `json:"subscribe"`   // base64: the first message of the stream
	Jobs        int     `json:"jobs"`        // one at a time, to a stream
	Method      string  `json:"method"`      // "/package.Service/Method"
	Request     string  `json:"request"`     // base64
	Connections int     `json:"connections"` // each has one call under way at a time
	WarmUp      float64 `json:"warm_up_seconds"`
	Seconds     float64 `json:"seconds"`
	Work        *Work   `json:"work"` // many lease streams, instead of calls
}

// Outcome is what it prints of calls.
type Outcome struct {
	Calls     int     `json:"calls"` // ended within Seconds
	Total     int     `json:"total"` // the warm-up's too
	Seconds   float64 `json:"seconds"`
	P50Millis float64 `json:"p50_ms"`
	P99Millis float64 `json:"p99_ms"`
}

// rawCodec passes bytes through.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*message.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, message any) error {
	*message.(*[]byte) = data.Materialize()
	return nil
}

var input = bufio.NewReader(os.Stdin)

func main() {
	var task Task
	told, err := input.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(told, &task)
	}
	if err != nil {
		fail(err)
	}
	encoding.RegisterCodecV2(rawCodec{})
	outcome, err := measure(task)
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(outcome); err != nil {
		fail(err)
	}
}

func measure(task Task) (any, error) {
	switch {
	case task.Work != nil:
		return workAll(task)
	case task.Leasing != "":
		return startEach(task)
	default:
		return callAll(task)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// callAll counts the calls that end within the time measured; each connection is a client of its own, open before the clock starts.
func callAll(task Task) (*Outcome, error) {
	request, err := base64.StdEncoding.DecodeString(task.Request)
	if err != nil {
		return nil, err
	}
	var counting, stopped atomic.Bool
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	var total atomic.Int64
	waits := make([][]time.Duration, task.Connections)
	for number := range task.Connections {
		connection, err := connect(task.Address)
		if err != nil {
			return nil, err
		}
		defer connection.Close()
		group.Add(1)
		go func() {
			defer group.Done()
			for !stopped.Load() {
				started := time.Now()
				var answer []byte
				if err := connection.Invoke(context.Background(), task.Method, &request, &answer); err != nil {
					failed.Store(&err)
					return
				}
				total.Add(1)
				if counting.Load() {
					waits[number] = append(waits[number], time.Since(started))
				}
			}
		}()
	}
	time.Sleep(seconds(task.WarmUp))
	counting.Store(true)
	began := time.Now()
	time.Sleep(seconds(task.Seconds))
	counting.Store(false)
	elapsed := time.Since(began)
	stopped.Store(true)
	group.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	outcome := summarize(slices.Concat(waits...), elapsed)
	outcome.Total = int(total.Load())
	return outcome, nil
}

func connect(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func summarize(waits []time.Duration, elapsed time.Duration) *Outcome {
	slices.Sort(waits)
	at := func(share float64) float64 {
		if len(waits) == 0 {
			return 0
		}
		return float64(waits[int(share*float64(len(waits)-1))].Microseconds()) / 1000
	}
	return &Outcome{Calls: len(waits), Seconds: elapsed.Seconds(), P50Millis: at(0.5), P99Millis: at(0.99)}
}

func seconds(value float64) time.Duration {
	return time.Duration(value * float64(time.Second))
}
