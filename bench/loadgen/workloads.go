package main

import (
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
)

// bulkDown receives from a source on every connection.
func bulkDown(chosen options) error {
	return onConnections(chosen, func(connection net.Conn) []operation {
		return []operation{receive(connection)}
	})
}

// bulkUp sends to a sink on every connection.
func bulkUp(chosen options) error {
	return onConnections(chosen, func(connection net.Conn) []operation {
		return []operation{send(connection)}
	})
}

// duplex does both at the same time on every connection.
func duplex(chosen options) error {
	return onConnections(chosen, func(connection net.Conn) []operation {
		return []operation{receive(connection), send(connection)}
	})
}

func receive(connection net.Conn) operation {
	block := make([]byte, chunk)
	return func() (int64, error) {
		length, err := connection.Read(block)
		return int64(length), err
	}
}

func send(connection net.Conn) operation {
	block := make([]byte, chunk)
	return func() (int64, error) {
		length, err := connection.Write(block)
		return int64(length), err
	}
}

// echo sends one message after the other on each connection, each when the one before has come back.
func echo(chosen options) error {
	return onConnections(chosen, func(connection net.Conn) []operation {
		message := make([]byte, chosen.size)
		return []operation{func() (int64, error) {
			if _, err := connection.Write(message); err != nil {
				return 0, err
			}
			_, err := io.ReadFull(connection, message)
			return int64(chosen.size), err
		}}
	})
}

// newConnections opens, proves and closes connections, several at a time. With `resume` each offers a session that the
// gateway has given before, if it gives any.
func newConnections(chosen options) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	if chosen.resume {
		client.keepSessions()
	}
	first, err := client.connectAndProve()
	if err != nil {
		return err
	}
	parameters := describe(first)
	first.Close()
	var resumed atomic.Int64
	one := func() (int64, error) {
		connection, err := client.connectAndProve()
		if err != nil {
			return 0, err
		}
		if secure, is := connection.(*tls.Conn); is && secure.ConnectionState().DidResume {
			resumed.Add(1)
		}
		return 1, connection.Close()
	}
	operations := make([]operation, chosen.connections)
	for index := range operations {
		operations[index] = one
	}
	outcome, err := steady(chosen, nil, operations)
	if err != nil {
		return err
	}
	outcome.TLS, outcome.Resumed = parameters, resumed.Load()
	return finish(outcome)
}

// idle holds connections that have carried one byte, until released.
func idle(chosen options) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	connections, err := connectMany(client.connectAndProve, chosen.connections)
	defer closeAll(connections)
	if err != nil {
		return err
	}
	return finish(result{Operations: int64(len(connections)), TLS: describe(connections[0])})
}
