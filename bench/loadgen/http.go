package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	smallBody = 128
	largeBody = 1024 * 1024
	// streams of each connection of HTTP/2.
	streams = 8
)

var (
	small = bytes.Repeat([]byte("x"), smallBody)
	large = make([]byte, largeBody)
)

// serveHTTP is an external service of HTTP/1.1, and of HTTP/2 by prior knowledge, which is how gateways speak it.
func serveHTTP(listener net.Listener) {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Handler: http.HandlerFunc(answer), Protocols: &protocols}
	_ = server.Serve(listener)
}

func answer(response http.ResponseWriter, request *http.Request) {
	if request.Header.Get("X-Forwarded-Client-Cert") == "" {
		// Carried as TCP, it is another and easier task.
		http.Error(response, "the gateway did not see the request", http.StatusBadGateway)
		return
	}
	switch request.URL.Path {
	case "/large":
		response.Header().Set("Content-Length", strconv.Itoa(largeBody))
		_, _ = response.Write(large)
	case "/sink":
		received, _ := io.Copy(io.Discard, request.Body)
		_, _ = fmt.Fprint(response, received)
	default:
		_, _ = response.Write(small)
	}
}

// exchange is one request and its response, on a connection that is kept: the bytes of the body that moved.
type exchange func(*tls.Conn, *bufio.Reader) (int64, error)

// http1 asks for something small again and again, on several connections.
func http1(chosen options) error {
	return exchanges(chosen, get("/"))
}

// httpDown receives bodies of 1 MiB.
func httpDown(chosen options) error {
	return exchanges(chosen, get("/large"))
}

// httpUp sends bodies of 1 MiB.
func httpUp(chosen options) error {
	head := fmt.Appendf(nil, "POST /sink HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n", largeBody)
	return exchanges(chosen, func(connection *tls.Conn, reader *bufio.Reader) (int64, error) {
		if _, err := connection.Write(head); err != nil {
			return 0, err
		}
		if _, err := connection.Write(large); err != nil {
			return 0, err
		}
		_, err := readResponse(reader)
		return largeBody, err
	})
}

func get(path string) exchange {
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: bench\r\nUser-Agent: loadgen\r\nAccept: */*\r\n\r\n", path)
	return func(connection *tls.Conn, reader *bufio.Reader) (int64, error) {
		if _, err := connection.Write(request); err != nil {
			return 0, err
		}
		return readResponse(reader)
	}
}

// readResponse is as little as a client can do: the generator must not be what limits a gateway.
func readResponse(reader *bufio.Reader) (int64, error) {
	line, err := reader.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if !strings.HasPrefix(line, "HTTP/1.1 200 ") {
		return 0, fmt.Errorf("the answer is %q", line)
	}
	length := int64(-1)
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, errors.New("the answer has no length")
	}
	return io.CopyN(io.Discard, reader, length)
}

// tally is what all connections of a workload did together.
type tally struct {
	done, bytes, failed atomic.Int64
	firstError          atomic.Pointer[string]
}

func (t *tally) failure(err error) {
	text := err.Error()
	t.firstError.CompareAndSwap(nil, &text)
	t.failed.Add(1)
}

func (t *tally) result(began time.Time, parameters negotiated) result {
	outcome := result{Seconds: time.Since(began).Seconds(), Operations: t.done.Load(), Bytes: t.bytes.Load()}
	outcome.Errors, outcome.TLS = t.failed.Load(), parameters
	if text := t.firstError.Load(); text != nil {
		outcome.FirstError = *text
	}
	return outcome
}

func exchanges(chosen options, one exchange) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	connections, err := connectMany(client.connect, chosen.connections)
	if err != nil {
		return err
	}
	var total tally
	var waiting sync.WaitGroup
	began := time.Now()
	until := began.Add(chosen.duration)
	for _, connection := range connections {
		waiting.Go(func() {
			defer connection.Close()
			_ = connection.SetDeadline(until.Add(dialTimeout))
			reader := bufio.NewReaderSize(connection, 64*1024)
			for time.Now().Before(until) {
				moved, err := one(connection, reader)
				if err != nil {
					total.failure(err)
					return
				}
				total.done.Add(1)
				total.bytes.Add(moved)
			}
		})
	}
	waiting.Wait()
	return report(total.result(began, describe(connections[0])))
}

// httpLatency is one connection with one request at a time.
func httpLatency(chosen options) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	connection, err := client.connect()
	if err != nil {
		return err
	}
	defer connection.Close()
	one, reader := get("/"), bufio.NewReader(connection)
	var trips []time.Duration
	began := time.Now()
	_ = connection.SetDeadline(began.Add(chosen.duration + dialTimeout))
	for time.Since(began) < chosen.duration {
		sent := time.Now()
		if _, err := one(connection, reader); err != nil {
			return err
		}
		trips = append(trips, time.Since(sent))
	}
	slices.Sort(trips)
	return report(result{
		Seconds:    time.Since(began).Seconds(),
		Operations: int64(len(trips)),
		P50Micros:  micros(trips[len(trips)/2]),
		P99Micros:  micros(trips[len(trips)*99/100]),
		TLS:        describe(connection),
	})
}

// http2 asks for something small on several streams of several connections.
func http2(chosen options) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	var parameters atomic.Pointer[negotiated]
	var total tally
	var waiting sync.WaitGroup
	began := time.Now()
	for range chosen.connections {
		transport := priorKnowledge(client, &parameters)
		defer transport.CloseIdleConnections()
		for range streams {
			waiting.Go(func() {
				for time.Since(began) < chosen.duration {
					if err := fetch(transport); err != nil {
						total.failure(err)
						return
					}
					total.done.Add(1)
				}
			})
		}
	}
	waiting.Wait()
	if parameters.Load() == nil {
		return errors.New(*total.firstError.Load())
	}
	return report(total.result(began, *parameters.Load()))
}

// priorKnowledge speaks HTTP/2 at once, as a sidecar does: Envoy's terminating gateway answers no ALPN. To the
// transport the session looks like an unencrypted connection.
func priorKnowledge(client *client, parameters *atomic.Pointer[negotiated]) *http.Transport {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{
		Protocols: &protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			connection, err := client.connect()
			if err != nil {
				return nil, err
			}
			agreed := describe(connection)
			parameters.Store(&agreed)
			// Hidden in a struct, or the transport would look for what ALPN has chosen.
			return struct{ net.Conn }{connection}, nil
		},
	}
}

func fetch(transport *http.Transport) error {
	request, err := http.NewRequest(http.MethodGet, "http://bench/", nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
		return fmt.Errorf("the answer is %s with %s", response.Status, response.Proto)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
