package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// event is one line of `watch`. Times are Unix nanoseconds of this machine's clock.
type event struct {
	Event string `json:"event"`
	AtNS  int64  `json:"at_ns"`
	Error string `json:"error,omitempty"`
}

// summary is the last line of `watch`.
type summary struct {
	Event string `json:"event"`
	// ConnectionsLost are those of the client that stays allowed.
	ConnectionsLost int `json:"connections_lost"`
	// LetInAgain counts attempts that succeeded after one was refused.
	LetInAgain int64      `json:"let_in_again"`
	TLS        negotiated `json:"tls"`
}

// watch observes a change of policy from outside: it holds connections of a client that will be denied and of one that
// stays allowed, and goes on connecting as the former. It reports `ready`, then `refused` (the first attempt that
// failed, when it had failed) and `ended` for each held connection of the denied client, until released.
func watch(chosen options) error {
	denied, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	allowed, err := newClient(chosen.target, chosen.other)
	if err != nil {
		return err
	}
	held, err := connectMany(denied.connectAndProve, chosen.connections)
	if err != nil {
		return err
	}
	kept, err := connectMany(allowed.connectAndProve, chosen.connections)
	if err != nil {
		return err
	}
	for _, connection := range held {
		go reportEnd(connection)
	}
	prober := probing(denied, chosen.interval)
	if err := report(event{Event: "ready", AtNS: time.Now().UnixNano()}); err != nil {
		return err
	}
	untilReleased()
	letInAgain := prober()
	lost := 0
	for _, connection := range kept {
		if prove(connection) != nil {
			lost++
		}
	}
	return report(summary{"done", lost, letInAgain, describe(kept[0])})
}

func reportEnd(connection net.Conn) {
	_, err := connection.Read(make([]byte, 1))
	_ = report(event{"ended", time.Now().UnixNano(), err.Error()})
}

// probing connects again and again; the function it returns stops that and says how often a refusal was followed by
// success.
func probing(denied *client, interval time.Duration) func() int64 {
	var letInAgain atomic.Int64
	var waiting sync.WaitGroup
	stop := make(chan struct{})
	waiting.Go(func() {
		refused := false
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
			connection, err := denied.connectAndProve()
			if err == nil {
				connection.Close()
				if refused {
					letInAgain.Add(1)
				}
			} else if !refused {
				refused = true
				_ = report(event{"refused", time.Now().UnixNano(), err.Error()})
			}
		}
	})
	return func() int64 {
		close(stop)
		waiting.Wait()
		return letInAgain.Load()
	}
}
