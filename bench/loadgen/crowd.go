package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// probedEach is the distance of the connections of a crowd whose latency is measured.
const probedEach = 200

// departure is a line of `crowd`: a connection has ended that nobody here closed.
type departure struct {
	Event  string `json:"event"`
	AtNS   int64  `json:"at_ns"`
	Source int    `json:"source"`
}

// trip is a line of `crowd`: one byte there and back on a connection that stays.
type trip struct {
	Event  string `json:"event"`
	AtNS   int64  `json:"at_ns"`
	TookNS int64  `json:"took_ns"`
}

// crowdSummary is the last line of `crowd`.
type crowdSummary struct {
	Event string `json:"event"`
	// Lost are probed connections that failed.
	Lost int `json:"lost"`
}

// member is one connection, and the line of the list of clients that it belongs to.
type member struct {
	connection net.Conn
	source     int
}

// crowd holds many connections of many clients to one service: as many as `-connections`, in turns of the clients in
// the list `-clients`. It reports `ready`, each connection that ends, and when released each trip on those that are
// probed all the time. The first client is never probed.
func crowd(chosen options) error {
	clients, err := readClients(chosen)
	if err != nil {
		return err
	}
	var members []member
	for len(members) < chosen.connections {
		// All of one client, so that a list of many costs no more handshakes at once than a short one.
		source := len(members) * len(clients) / chosen.connections
		share := (source+1)*chosen.connections/len(clients) - len(members)
		opened, err := connectMany(clients[source].connectAndProve, max(1, share))
		if err != nil {
			return fmt.Errorf("connection %d: %w", len(members), err)
		}
		for _, connection := range opened {
			members = append(members, member{connection, source})
		}
	}
	var probed []member
	for index, one := range members {
		if index%probedEach == probedEach-1 && one.source != 0 {
			probed = append(probed, one)
		} else {
			go reportDeparture(one)
		}
	}
	stop := probeInTurns(probed, chosen.interval)
	if err := report(event{Event: "ready", AtNS: time.Now().UnixNano()}); err != nil {
		return err
	}
	untilReleased()
	trips, lost := stop()
	for _, one := range trips {
		if err := report(one); err != nil {
			return err
		}
	}
	return report(crowdSummary{"done", lost})
}

func readClients(chosen options) ([]*client, error) {
	list, err := os.Open(chosen.clients)
	if err != nil {
		return nil, err
	}
	defer list.Close()
	var clients []*client
	for lines := bufio.NewScanner(list); lines.Scan(); {
		certificate, key, _ := strings.Cut(lines.Text(), " ")
		one, err := newClient(chosen.target, clientFiles{certificate, key})
		if err != nil {
			return nil, err
		}
		clients = append(clients, one)
	}
	if len(clients) == 0 {
		return nil, fmt.Errorf("%s names no client", chosen.clients)
	}
	return clients, nil
}

func reportDeparture(one member) {
	_, _ = one.connection.Read(make([]byte, 1))
	_ = report(departure{"ended", time.Now().UnixNano(), one.source})
}

// probeInTurns goes on until the function is called that it returns.
func probeInTurns(probed []member, interval time.Duration) func() ([]trip, int) {
	var trips []trip
	lost := 0
	var waiting sync.WaitGroup
	stop := make(chan struct{})
	waiting.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for turn := 0; len(probed) > 0; turn++ {
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
			began := time.Now()
			if prove(probed[turn%len(probed)].connection) != nil {
				lost++
				continue
			}
			trips = append(trips, trip{"trip", began.UnixNano(), time.Since(began).Nanoseconds()})
		}
	})
	return func() ([]trip, int) {
		close(stop)
		waiting.Wait()
		return trips, lost
	}
}
