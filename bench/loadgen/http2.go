package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// streams of each connection of HTTP/2.
const streams = 8

// http2 asks for something small on several streams of several connections.
func http2(chosen options) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	var seen dialled
	var operations []operation
	for range chosen.connections {
		transport := priorKnowledge(client, &seen)
		defer transport.CloseIdleConnections()
		one := func() (int64, error) { return fetch(transport) }
		if _, err := one(); err != nil {
			return err
		}
		for range streams {
			operations = append(operations, one)
		}
	}
	outcome, err := steady(chosen, nil, operations)
	if err != nil {
		return err
	}
	outcome.TLS = *seen.Load()
	return finish(outcome)
}

// dialled remembers what the last connection has agreed on.
type dialled struct{ atomic.Pointer[negotiated] }

func (d *dialled) dial(client *client) (net.Conn, error) {
	connection, err := client.connect()
	if err != nil {
		return nil, err
	}
	agreed := describe(connection)
	d.Store(&agreed)
	// Hidden in a struct, or the transport would look for what ALPN has chosen.
	return struct{ net.Conn }{connection}, nil
}

// priorKnowledge speaks HTTP/2 at once, as a sidecar does: Envoy's terminating gateway answers no ALPN. To the
// transport the session looks like an unencrypted connection.
func priorKnowledge(client *client, seen *dialled) *http.Transport {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{
		Protocols:   &protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return seen.dial(client) },
	}
}

func fetch(transport *http.Transport) (int64, error) {
	request, err := http.NewRequest(http.MethodGet, "http://bench/", nil)
	if err != nil {
		return 0, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
		return 0, fmt.Errorf("the answer is %s with %s", response.Status, response.Proto)
	}
	return io.Copy(io.Discard, response.Body)
}
