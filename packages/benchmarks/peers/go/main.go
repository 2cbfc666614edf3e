// The Go side of the benchmarks: `peer channel|errgroup|parked|restart COUNT` prints one measurement as JSON, times in
// nanoseconds an operation.
package main

import (
	"context"
	"errors"
	"math"
	"os"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/thejerf/suture/v4"
	"golang.org/x/sync/errgroup"
)

func main() {
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	switch os.Args[1] {
	case "channel":
		print("time", median(count, channel))
	case "errgroup":
		print("time", median(count, group))
	case "parked":
		// First the memory: later goroutines get that of the ones before them.
		each := bytes(count)
		print("bytes", each, "total", median(count, func(count int) { spawn(count)() }))
	case "restart":
		print("time", median(count, restart))
	default:
		panic("no such work: " + os.Args[1])
	}
}

// Messages through a buffered channel, from one goroutine to another.
func channel(count int) {
	messages := make(chan int, 512)
	go func() {
		for i := range count {
			messages <- i
		}
		close(messages)
	}()
	for range messages {
	}
}

// Tasks that yield once, in an errgroup.
func group(count int) {
	tasks, _ := errgroup.WithContext(context.Background())
	for range count {
		tasks.Go(func() error {
			runtime.Gosched()
			return nil
		})
	}
	if err := tasks.Wait(); err != nil {
		panic(err)
	}
}

// Starts goroutines that wait for their context, and returns what cancels them and waits for their end.
func spawn(count int) func() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for range count {
		running.Add(1)
		go func() {
			defer running.Done()
			<-ctx.Done()
		}()
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// A service that fails at once, so many times, under a supervisor that always restarts it without a backoff.
func restart(count int) {
	ctx, cancel := context.WithCancel(context.Background())
	supervisor := suture.New("restart", suture.Spec{
		EventHook:        func(suture.Event) {},
		FailureThreshold: math.Inf(1),
	})
	service := &failing{left: count, done: make(chan struct{})}
	supervisor.Add(service)
	stopped := supervisor.ServeBackground(ctx)
	<-service.done
	cancel()
	<-stopped
}

type failing struct {
	left int
	done chan struct{}
}

var errFailed = errors.New("failed")

func (service *failing) Serve(ctx context.Context) error {
	if service.left > 0 {
		service.left--
		return errFailed
	}
	close(service.done)
	<-ctx.Done()
	return nil
}

func bytes(count int) float64 {
	before := used()
	stop := spawn(count)
	after := used()
	stop()
	return float64(after-before) / float64(count)
}

func used() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapInuse + stats.StackInuse
}

// Nanoseconds an operation: the median of 5 rounds after one to warm up.
func median(count int, work func(int)) float64 {
	rounds := make([]float64, 0, 5)
	for round := range 6 {
		start := time.Now()
		work(count)
		if round > 0 {
			rounds = append(rounds, float64(time.Since(start).Nanoseconds())/float64(count))
		}
	}
	sort.Float64s(rounds)
	return rounds[2]
}

func print(fields ...any) {
	line := "{"
	for i := 0; i < len(fields); i += 2 {
		if i > 0 {
			line += ","
		}
		line += strconv.Quote(fields[i].(string)) + ":" + strconv.FormatFloat(fields[i+1].(float64), 'f', 3, 64)
	}
	os.Stdout.WriteString(line + "}\n")
}
