package main

import (
	"context"
	"encoding/base64"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
)

// Pauses between jobs, random so that they do not fall in step with a timer.
const (
	shortestPause = 5 * time.Millisecond
	longestPause  = 25 * time.Millisecond
)

const lease = "/reprise.v1.BrokerService/Lease"

// startEach enqueues one job at a time, and takes the time from the call until the lease has arrived on a stream that waits for it.
func startEach(task Task) (*Outcome, error) {
	request, err := base64.StdEncoding.DecodeString(task.Request)
	if err != nil {
		return nil, err
	}
	enqueuing, err := connect(task.Address)
	if err != nil {
		return nil, err
	}
	defer enqueuing.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	arrived, failed, err := subscribe(ctx, task)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	waits := make([]time.Duration, 0, task.Jobs)
	for range task.Jobs {
		time.Sleep(shortestPause + rand.N(longestPause-shortestPause))
		started := time.Now()
		var answer []byte
		if err := enqueuing.Invoke(ctx, task.Method, &request, &answer); err != nil {
			return nil, err
		}
		select {
		case at := <-arrived:
			waits = append(waits, at.Sub(started))
		case err := <-failed:
			return nil, err
		}
	}
	outcome := summarize(waits, time.Since(began))
	outcome.Total = len(waits)
	return outcome, nil
}

// subscribe opens the lease stream; it gives the instants at which leases arrive, and the error that ends it.
func subscribe(ctx context.Context, task Task) (<-chan time.Time, <-chan error, error) {
	subscription, err := base64.StdEncoding.DecodeString(task.Subscribe)
	if err != nil {
		return nil, nil, err
	}
	leasing, err := connect(task.Leasing)
	if err != nil {
		return nil, nil, err
	}
	context.AfterFunc(ctx, func() { leasing.Close() })
	stream, err := leasing.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, lease)
	if err != nil {
		return nil, nil, err
	}
	if err := stream.SendMsg(&subscription); err != nil {
		return nil, nil, err
	}
	arrived, failed := make(chan time.Time, 1), make(chan error, 1)
	go func() {
		for {
			var message []byte
			if err := stream.RecvMsg(&message); err != nil {
				failed <- err
				return
			}
			if len(message) > 0 { // an empty one is a sign of life
				arrived <- time.Now()
			}
		}
	}()
	return arrived, failed, nil
}
