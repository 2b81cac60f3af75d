package main

import (
	"errors"
	"net"
	"slices"
	"sync"
	"time"
)

// result is what a workload prints at its end.
type result struct {
	Seconds    float64 `json:"seconds"`
	Operations int64   `json:"operations"`
	Bytes      int64   `json:"bytes"`
	Errors     int64   `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	// Resumed counts new connections that went on with a session of another.
	Resumed   int64      `json:"resumed"`
	P50Micros float64    `json:"p50_us,omitempty"`
	P99Micros float64    `json:"p99_us,omitempty"`
	TLS       negotiated `json:"tls"`
}

// operation is done again and again, each when the one before has ended: the bytes that it moved.
type operation func() (int64, error)

// tally is what all loops of a workload did together.
type tally struct {
	mutex  sync.Mutex
	trips  []time.Duration
	bytes  int64
	errors []error
}

func (t *tally) add(trips []time.Duration, moved int64, err error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.trips = append(t.trips, trips...)
	t.bytes += moved
	if err != nil {
		t.errors = append(t.errors, err)
	}
}

func (t *tally) result(took time.Duration) (result, error) {
	if len(t.trips) == 0 {
		return result{}, errors.Join(append(t.errors, errors.New("nothing was done in time"))...)
	}
	slices.Sort(t.trips)
	outcome := result{
		Seconds:    took.Seconds(),
		Operations: int64(len(t.trips)),
		Bytes:      t.bytes,
		Errors:     int64(len(t.errors)),
		P50Micros:  micros(t.trips[len(t.trips)/2]),
		P99Micros:  micros(t.trips[len(t.trips)*99/100]),
	}
	if len(t.errors) > 0 {
		outcome.FirstError = t.errors[0].Error()
	}
	return outcome, nil
}

// steady runs each operation in a loop of its own for the chosen time, and times every one. A loop ends early when
// its operation fails. What the connections are bound to hold still until we are released.
func steady(chosen options, connections []net.Conn, operations []operation) (result, error) {
	if err := untilToldTo(); err != nil {
		return result{}, err
	}
	var total tally
	var waiting sync.WaitGroup
	began := time.Now()
	until := began.Add(chosen.duration)
	for _, connection := range connections {
		_ = connection.SetDeadline(until.Add(dialTimeout))
	}
	for _, one := range operations {
		waiting.Go(func() { total.add(loop(one, until)) })
	}
	waiting.Wait()
	return total.result(time.Since(began))
}

// loop does it at least once: a busy machine may let us begin when the time is over already.
func loop(one operation, until time.Time) ([]time.Duration, int64, error) {
	var trips []time.Duration
	var total int64
	for sent := time.Now(); ; {
		moved, err := one()
		total += moved
		if err != nil {
			return trips, total, err
		}
		now := time.Now()
		trips = append(trips, now.Sub(sent))
		if sent = now; !now.Before(until) {
			return trips, total, nil
		}
	}
}

// onConnections is a steady workload of operations that each have a connection, opened before it begins.
func onConnections(chosen options, on func(net.Conn) []operation) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	connections, err := connectMany(client.connect, chosen.connections)
	defer closeAll(connections)
	if err != nil {
		return err
	}
	var operations []operation
	for _, connection := range connections {
		operations = append(operations, on(connection)...)
	}
	outcome, err := steady(chosen, connections, operations)
	if err != nil {
		return err
	}
	outcome.TLS = describe(connections[0])
	return finish(outcome)
}

// finish tells the result, and returns when our caller has read all clocks.
func finish(outcome result) error {
	if err := report(outcome); err != nil {
		return err
	}
	untilReleased()
	return nil
}

func closeAll(connections []net.Conn) {
	for _, connection := range connections {
		connection.Close()
	}
}

func micros(duration time.Duration) float64 {
	return float64(duration.Nanoseconds()) / 1000
}
