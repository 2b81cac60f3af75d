package main

import (
	"io"
	"net"
)

const chunk = 256 * 1024

// serve is the external service: each behaviour on a loopback port.
func serve() error {
	ports := map[string]int{}
	for name, behaviour := range map[string]func(net.Listener){
		"source": connections(source),
		"sink":   connections(sink),
		"duplex": connections(both),
		"echo":   connections(echoBack),
		"http":   serveHTTP,
		"http2":  serveHTTP,
		"grpc":   serveGRPC,
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		ports[name] = listener.Addr().(*net.TCPAddr).Port
		go behaviour(listener)
	}
	if err := report(ports); err != nil {
		return err
	}
	untilReleased()
	return nil
}

func connections(behaviour func(net.Conn)) func(net.Listener) {
	return func(listener net.Listener) { accept(listener, behaviour) }
}

func accept(listener net.Listener, behaviour func(net.Conn)) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			continue
		}
		go func() {
			defer connection.Close()
			behaviour(connection)
		}()
	}
}

// source sends until the client goes away.
func source(connection net.Conn) {
	block := make([]byte, chunk)
	for {
		if _, err := connection.Write(block); err != nil {
			return
		}
	}
}

// sink receives until the end, then says that it has everything.
func sink(connection net.Conn) {
	block := make([]byte, chunk)
	for {
		if _, err := connection.Read(block); err != nil {
			if err == io.EOF {
				_, _ = connection.Write([]byte{1})
			}
			return
		}
	}
}

// both is source and sink at the same time.
func both(connection net.Conn) {
	go source(connection)
	sink(connection)
}

// echoBack begins with a small buffer: thousands of idle connections are to cost the gateway, not us.
func echoBack(connection net.Conn) {
	block := make([]byte, 1024)
	for {
		length, err := connection.Read(block)
		if err != nil {
			return
		}
		if _, err := connection.Write(block[:length]); err != nil {
			return
		}
		if length == len(block) && length < chunk {
			block = make([]byte, 2*length)
		}
	}
}
