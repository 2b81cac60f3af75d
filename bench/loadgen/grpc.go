package main

import (
	"context"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	unaryMethod  = "/bench.Echo/Once"
	streamMethod = "/bench.Echo/Many"
)

// rawCodec carries bytes as they are: what a message means is no gateway's business.
type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(message any) ([]byte, error) {
	if bytes, is := message.(*[]byte); is {
		return *bytes, nil
	}
	return nil, fmt.Errorf("%T is not bytes", message)
}

func (rawCodec) Unmarshal(data []byte, message any) error {
	bytes, is := message.(*[]byte)
	if !is {
		return fmt.Errorf("%T is not bytes", message)
	}
	*bytes = append((*bytes)[:0], data...)
	return nil
}

// serveGRPC answers every message with the same message.
func serveGRPC(listener net.Listener) {
	server := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(answerGRPC))
	_ = server.Serve(listener)
}

// answerGRPC serves both methods: one that is called once is a stream of one message.
func answerGRPC(_ any, stream grpc.ServerStream) error {
	arrived, _ := metadata.FromIncomingContext(stream.Context())
	if len(arrived.Get("x-forwarded-client-cert")) == 0 {
		return status.Error(codes.FailedPrecondition, "the gateway did not see the call")
	}
	var message []byte
	for {
		if err := stream.RecvMsg(&message); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
}

// grpcUnary calls once and once again, on several streams of several connections.
func grpcUnary(chosen options) error {
	return onChannels(chosen, func(channel *grpc.ClientConn) (operation, error) {
		message, answer := make([]byte, chosen.size), []byte(nil)
		return func() (int64, error) {
			err := channel.Invoke(context.Background(), unaryMethod, &message, &answer)
			return int64(len(answer)), err
		}, nil
	})
}

// grpcStream keeps streams open; on each a message is sent when the one before has come back.
func grpcStream(chosen options) error {
	description := grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	return onChannels(chosen, func(channel *grpc.ClientConn) (operation, error) {
		stream, err := channel.NewStream(context.Background(), &description, streamMethod)
		if err != nil {
			return nil, err
		}
		message, answer := make([]byte, chosen.size), []byte(nil)
		return func() (int64, error) {
			if err := stream.SendMsg(&message); err != nil {
				return 0, err
			}
			err := stream.RecvMsg(&answer)
			return int64(len(answer)), err
		}, nil
	})
}

func onChannels(chosen options, on func(*grpc.ClientConn) (operation, error)) error {
	client, err := newClient(chosen.target, chosen.client)
	if err != nil {
		return err
	}
	var seen dialled
	var operations []operation
	for range chosen.connections {
		channel, err := grpc.NewClient(
			"passthrough:///bench",
			// TLS is below it already, with an identity that it could not check.
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return seen.dial(client) }),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})),
		)
		if err != nil {
			return err
		}
		defer channel.Close()
		for range streams {
			one, err := on(channel)
			if err != nil {
				return err
			}
			if _, err := one(); err != nil {
				return err
			}
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
