package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

const (
	smallBody = 128
	largeBody = 1024 * 1024
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

// http1 asks for something small again and again.
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
	return exchanges(chosen, func(connection net.Conn, reader *bufio.Reader) (int64, error) {
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

// exchanges is one request and its response after the other, on each connection.
func exchanges(chosen options, one func(net.Conn, *bufio.Reader) (int64, error)) error {
	return onConnections(chosen, func(connection net.Conn) []operation {
		reader := bufio.NewReaderSize(connection, 64*1024)
		return []operation{func() (int64, error) { return one(connection, reader) }}
	})
}

func get(path string) func(net.Conn, *bufio.Reader) (int64, error) {
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: bench\r\nUser-Agent: loadgen\r\nAccept: */*\r\n\r\n", path)
	return func(connection net.Conn, reader *bufio.Reader) (int64, error) {
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
