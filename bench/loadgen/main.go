// Command loadgen puts load on a terminating gateway, and is the external service behind it.
//
// It speaks to the gateway as a service of the mesh does: mutual TLS with a leaf of Consul's CA, by server name; or in
// plain TCP to a sidecar, which does that for it. It measures what a client can see; processor time and memory of the
// gateway are its caller's business.
//
// `loadgen serve` prints the ports of its services as JSON and serves until standard input ends. Every other
// command is a workload: it prints JSON, one object per line. A steady one says `ready` when it is connected, begins
// when it gets a line, prints its result and keeps what it has open until standard input ends, so that its caller can
// account for exactly that time.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// options are the flags of the workloads; each reads those it needs.
type options struct {
	client      clientFiles
	other       clientFiles
	target      target
	connections int
	duration    time.Duration
	size        int
	interval    time.Duration
	resume      bool
	clients     string
}

var workloads = map[string]func(options) error{
	"bulk-down":       bulkDown,
	"bulk-up":         bulkUp,
	"duplex":          duplex,
	"new-connections": newConnections,
	"echo":            echo,
	"http1":           http1,
	"http2":           http2,
	"http-down":       httpDown,
	"http-up":         httpUp,
	"grpc-unary":      grpcUnary,
	"grpc-stream":     grpcStream,
	"idle":            idle,
	"watch":           watch,
	"crowd":           crowd,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return fmt.Errorf("no command: serve, watch or a workload")
	}
	if arguments[0] == "serve" {
		return serve()
	}
	workload, known := workloads[arguments[0]]
	if !known {
		return fmt.Errorf("unknown command %q", arguments[0])
	}
	parsed, err := parse(arguments[0], arguments[1:])
	if err != nil {
		return err
	}
	return workload(parsed)
}

func parse(name string, arguments []string) (options, error) {
	var chosen options
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&chosen.target.address, "address", "", "ip:port of the gateway, or of a sidecar's upstream")
	flags.BoolVar(&chosen.target.plain, "plain", false, "no TLS: a sidecar is there")
	flags.Func("server-name", "SNI; may be repeated, connections take turns", appendTo(&chosen.target.serverNames))
	flags.Func("spiffe-id", "URI that the certificate must carry, one for each server name",
		appendTo(&chosen.target.spiffeIDs))
	flags.StringVar(&chosen.target.rootsFile, "roots", "", "PEM file: the mesh's roots")
	flags.StringVar(&chosen.target.maximumVersion, "tls-max", "1.3", "1.2 or 1.3")
	flags.StringVar(&chosen.client.certificate, "certificate", "", "PEM file: the client's leaf and its intermediates")
	flags.StringVar(&chosen.client.key, "key", "", "PEM file: the leaf's key")
	flags.StringVar(&chosen.other.certificate, "other-certificate", "", "watch: leaf of the client that stays allowed")
	flags.StringVar(&chosen.other.key, "other-key", "", "watch: its key")
	flags.IntVar(&chosen.connections, "connections", 1, "how many at the same time")
	flags.IntVar(&chosen.size, "size", 128, "echo: bytes of one message")
	flags.DurationVar(&chosen.duration, "duration", time.Second, "how long")
	flags.DurationVar(&chosen.interval, "interval", 5*time.Millisecond, "watch: between two attempts to connect")
	flags.BoolVar(&chosen.resume, "resume", false, "new-connections: offer the session of the one before")
	flags.StringVar(&chosen.clients, "clients", "", "crowd: file with a line for each client: its certificate and its key")
	if err := flags.Parse(arguments); err != nil {
		return chosen, err
	}
	if chosen.connections < 1 {
		return chosen, fmt.Errorf("%d connections are none", chosen.connections)
	}
	return chosen, nil
}

func appendTo(list *[]string) func(string) error {
	return func(value string) error {
		*list = append(*list, value)
		return nil
	}
}

var (
	output sync.Mutex
	input  = bufio.NewReader(os.Stdin)
)

// report prints one object, whole, whichever goroutine calls.
func report(object any) error {
	output.Lock()
	defer output.Unlock()
	return json.NewEncoder(os.Stdout).Encode(object)
}

// untilToldTo says that we are ready and returns when our caller has read all clocks.
func untilToldTo() error {
	if err := report(event{Event: "ready", AtNS: time.Now().UnixNano()}); err != nil {
		return err
	}
	_, err := input.ReadString('\n')
	return err
}

// untilReleased returns when whoever started us closes our standard input, or ends.
func untilReleased() {
	_, _ = io.Copy(io.Discard, input)
}
