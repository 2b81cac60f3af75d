package main

import (
	"crypto/tls"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// result is what a workload prints at its end.
type result struct {
	Seconds    float64    `json:"seconds"`
	Operations int64      `json:"operations"`
	Bytes      int64      `json:"bytes"`
	Errors     int64      `json:"errors"`
	FirstError string     `json:"first_error,omitempty"`
	P50Micros  float64    `json:"p50_us,omitempty"`
	P99Micros  float64    `json:"p99_us,omitempty"`
	TLS        negotiated `json:"tls"`
}

// bulkDown receives from a source on every connection.
func bulkDown(chosen options) error {
	return bulk(chosen, func(connection *tls.Conn, block []byte) (int, error) {
		return connection.Read(block)
	})
}

// bulkUp sends to a sink on every connection.
func bulkUp(chosen options) error {
	return bulk(chosen, func(connection *tls.Conn, block []byte) (int, error) {
		return connection.Write(block)
	})
}

func bulk(chosen options, move func(*tls.Conn, []byte) (int, error)) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	connections, err := connectMany(client.connect, chosen.connections)
	if err != nil {
		return err
	}
	began := time.Now()
	moved, failures := moveAll(connections, began.Add(chosen.duration), move)
	outcome := result{Seconds: time.Since(began).Seconds(), Bytes: moved, TLS: describe(connections[0])}
	outcome.Operations = int64(len(connections))
	for _, failure := range failures {
		outcome.Errors++
		outcome.FirstError = failure.Error()
	}
	for _, connection := range connections {
		connection.Close()
	}
	return report(outcome)
}

// moveAll returns the bytes moved on all connections by the deadline, and what ended any of them before.
func moveAll(connections []*tls.Conn, until time.Time, move func(*tls.Conn, []byte) (int, error)) (int64, []error) {
	var total atomic.Int64
	var waiting sync.WaitGroup
	failures := make(chan error, len(connections))
	for _, connection := range connections {
		waiting.Go(func() {
			block := make([]byte, chunk)
			_ = connection.SetDeadline(until.Add(dialTimeout))
			for time.Now().Before(until) {
				length, err := move(connection, block)
				total.Add(int64(length))
				if err != nil {
					failures <- err
					return
				}
			}
		})
	}
	waiting.Wait()
	close(failures)
	var all []error
	for failure := range failures {
		all = append(all, failure)
	}
	return total.Load(), all
}

// newConnections opens, proves and closes connections, each with a full handshake.
func newConnections(chosen options) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	first, err := client.connectAndProve()
	if err != nil {
		return err
	}
	outcome := result{TLS: describe(first)}
	first.Close()
	var done, failed atomic.Int64
	var firstError atomic.Pointer[string]
	var waiting sync.WaitGroup
	began := time.Now()
	for range chosen.connections {
		waiting.Go(func() {
			for time.Since(began) < chosen.duration {
				connection, err := client.connectAndProve()
				if err != nil {
					text := err.Error()
					firstError.CompareAndSwap(nil, &text)
					failed.Add(1)
					continue
				}
				connection.Close()
				done.Add(1)
			}
		})
	}
	waiting.Wait()
	outcome.Seconds = time.Since(began).Seconds()
	outcome.Operations = done.Load()
	outcome.Errors = failed.Load()
	if text := firstError.Load(); text != nil {
		outcome.FirstError = *text
	}
	return report(outcome)
}

// echo sends one message after the other on one connection, each when the one before has come back.
func echo(chosen options) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	connection, err := client.connectAndProve()
	if err != nil {
		return err
	}
	defer connection.Close()
	message := make([]byte, chosen.size)
	var trips []time.Duration
	began := time.Now()
	_ = connection.SetDeadline(began.Add(chosen.duration + dialTimeout))
	for time.Since(began) < chosen.duration {
		sent := time.Now()
		if _, err := connection.Write(message); err != nil {
			return err
		}
		if _, err := io.ReadFull(connection, message); err != nil {
			return err
		}
		trips = append(trips, time.Since(sent))
	}
	if len(trips) == 0 {
		return errors.New("no message came back in time")
	}
	slices.Sort(trips)
	return report(result{
		Seconds:    time.Since(began).Seconds(),
		Operations: int64(len(trips)),
		Bytes:      int64(len(trips) * chosen.size),
		P50Micros:  micros(trips[len(trips)/2]),
		P99Micros:  micros(trips[len(trips)*99/100]),
		TLS:        describe(connection),
	})
}

func micros(duration time.Duration) float64 {
	return float64(duration.Nanoseconds()) / 1000
}

// idle holds connections that have carried one byte, until released.
func idle(chosen options) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	connections, err := connectMany(client.connectAndProve, chosen.connections)
	if err != nil {
		return err
	}
	outcome := result{Operations: int64(len(connections)), TLS: describe(connections[0])}
	if err := report(outcome); err != nil {
		return err
	}
	untilReleased()
	for _, connection := range connections {
		connection.Close()
	}
	return nil
}
