package main

import (
	"context"
	"fmt"
	"io"
	"math/rand"
	"sort"
	"sync"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc/status"
)

type tally struct {
	lock              sync.Mutex
	took              []time.Duration
	failures          map[string]int
	open, told, specs int
}

func (t *tally) failed(err error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.failures[status.Code(err).String()+": "+status.Convert(err).Message()]++
}

func (t *tally) timed(call func() error) {
	began := time.Now()
	err := call()
	if err != nil {
		t.failed(err)
		return
	}
	t.lock.Lock()
	t.took = append(t.took, time.Since(began))
	t.lock.Unlock()
}

func (t *tally) count(which *int, by int) {
	t.lock.Lock()
	*which += by
	t.lock.Unlock()
}

func (t *tally) say(what string) {
	t.lock.Lock()
	defer t.lock.Unlock()
	sort.Slice(t.took, func(i, j int) bool { return t.took[i] < t.took[j] })
	at := func(share float64) float64 {
		if len(t.took) == 0 {
			return -1
		}
		return float64(t.took[int(share*float64(len(t.took)-1))].Microseconds()) / 1000
	}
	say(map[string]any{"at": what, "calls": len(t.took), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1), "failures": t.failures, "open": t.open,
		"told": t.told, "specs": t.specs})
}

func (t *tally) forget() {
	t.lock.Lock()
	t.took = nil
	t.lock.Unlock()
}

// ---- a thousand ScaledObjects ----

// Reads until the stream ends; ended by us is no failure.
func (t *tally) watch(ctx context.Context, c pb.ExternalScalerClient, name string) {
	stream, err := c.StreamIsActive(ctx, refOf(name))
	if err == nil {
		t.count(&t.open, 1)
		for err == nil {
			if _, err = stream.Recv(); err == nil {
				t.count(&t.told, 1)
			}
		}
		t.count(&t.open, -1)
	}
	if ctx.Err() == nil && err != io.EOF {
		t.failed(err)
	}
}

func (t *tally) watchSpecs(ctx context.Context, c pb.ExternalScalerClient, name string) {
	stream, err := c.StreamMetricSpec(ctx, refOf(name))
	for err == nil {
		if _, err = stream.Recv(); err == nil {
			t.count(&t.specs, 1)
		}
	}
	if ctx.Err() == nil && err != io.EOF {
		t.failed(err)
	}
}

func pause(ctx context.Context, long time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(long):
	}
}

// What KEDA does at each poll of a ScaledObject.
func (t *tally) poll(ctx context.Context, c pb.ExternalScalerClient, name string) {
	pause(ctx, time.Duration(rand.Int63n(int64(*interval))))
	for ctx.Err() == nil {
		for _, call := range []rpc{getMetricSpec, getMetrics, isActive} {
			if ctx.Err() == nil {
				t.timed(func() error { return call(background(), c, name) })
			}
		}
		pause(ctx, *interval)
	}
}

func many(address string) {
	ctx := untilStdinEnds()
	conn, c := connect(address)
	defer conn.Close()
	t := &tally{failures: map[string]int{}}
	var wait sync.WaitGroup
	for i := range *number {
		name := fmt.Sprintf("bot-%d", i)
		for _, work := range []func(context.Context, pb.ExternalScalerClient, string){t.watch, t.watchSpecs, t.poll} {
			wait.Add(1)
			go func() {
				defer wait.Done()
				work(ctx, c, name)
			}()
		}
	}
	for all := false; !all && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		t.lock.Lock()
		all = t.open == *number && t.specs == *number
		t.lock.Unlock()
	}
	t.say("open")
	t.forget() // how long calls took while two thousand streams were opened
	wait.Wait()
	t.say("end")
}

// ---- what is pushed ----

// With -again the stream is opened anew on the same connection, until stdin ends.
func push(address string) {
	ctx := untilStdinEnds()
	conn, c := connect(address)
	defer conn.Close()
	for {
		stream, err := c.StreamIsActive(ctx, refOf(*function))
		if err == nil {
			_, err = c.GetMetricSpec(ctx, refOf(*function)) // the stream's request is in as well, then
		}
		if err == nil {
			say(map[string]any{"at": "open"})
			err = readPushes(stream)
		} else if !*again {
			fail(err)
		}
		say(map[string]any{"at": "end", "clean": err == io.EOF, "code": status.Code(err).String()})
		if !*again || ctx.Err() != nil {
			return
		}
		pause(ctx, 100*time.Millisecond)
	}
}

func readPushes(stream pb.ExternalScaler_StreamIsActiveClient) error {
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		say(map[string]any{"at": "told", "result": answer.GetResult(), "unix_ns": time.Now().UnixNano()})
	}
}

// ---- load ----

func load(address string) {
	ctx := untilStdinEnds()
	kept, c := connect(address)
	defer kept.Close()
	t := &tally{failures: map[string]int{}}
	var wait sync.WaitGroup
	for range 4 {
		wait.Add(2)
		go func() {
			defer wait.Done()
			for ctx.Err() == nil {
				t.timed(func() error { return getMetrics(background(), c, *function) })
				time.Sleep(time.Millisecond)
			}
		}()
		go func() {
			defer wait.Done()
			for ctx.Err() == nil {
				conn, fresh := connect(address)
				t.timed(func() error { return getMetrics(background(), fresh, *function) })
				conn.Close()
			}
		}()
	}
	say(map[string]any{"at": "open"})
	wait.Wait()
	t.say("end")
}
