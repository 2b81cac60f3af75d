package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

const dialTimeout = 10 * time.Second

// target is the gateway, and what it has to prove; or a sidecar that sees to it.
type target struct {
	address        string
	plain          bool
	serverNames    []string
	spiffeIDs      []string
	rootsFile      string
	maximumVersion string
}

type clientFiles struct {
	certificate string
	key         string
}

// client makes connections as one service of the mesh.
type client struct {
	address string
	// services are those it connects to in turns; none without TLS.
	services []*tls.Config
	next     atomic.Uint64
}

// negotiated is printed with every result, so that two gateways are seen to do the same cryptography.
type negotiated struct {
	Version string `json:"version"`
	Cipher  string `json:"cipher"`
	Group   string `json:"group"`
	// Chain is how many certificates the gateway sends.
	Chain int `json:"chain"`
}

func newClient(to target, files clientFiles) (*client, error) {
	if to.plain {
		return &client{address: to.address}, nil
	}
	if len(to.serverNames) == 0 || len(to.serverNames) != len(to.spiffeIDs) {
		return nil, fmt.Errorf("%d server names and %d SPIFFE IDs", len(to.serverNames), len(to.spiffeIDs))
	}
	pair, err := tls.LoadX509KeyPair(files.certificate, files.key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(to.rootsFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", to.rootsFile)
	}
	versions := map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	maximum, known := versions[to.maximumVersion]
	if !known {
		return nil, fmt.Errorf("TLS version %q is not 1.2 or 1.3", to.maximumVersion)
	}
	made := client{address: to.address}
	for index, serverName := range to.serverNames {
		made.services = append(made.services, settings(pair, serverName, maximum, roots, to.spiffeIDs[index]))
	}
	return &made, nil
}

func settings(
	pair tls.Certificate, serverName string, maximum uint16, roots *x509.CertPool, spiffeID string,
) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		ServerName:   serverName,
		MinVersion:   tls.VersionTLS12,
		MaxVersion:   maximum,
		// What an Envoy sidecar offers. Go would add a hybrid group that only one of the gateways might accept.
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256},
		CipherSuites:     []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		// The mesh names services by SPIFFE ID, not by host name: checkIdentity verifies instead.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return checkIdentity(state.PeerCertificates, roots, spiffeID)
		},
	}
}

func checkIdentity(chain []*x509.Certificate, roots *x509.CertPool, spiffeID string) error {
	intermediates := x509.NewCertPool()
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
	if err != nil {
		return err
	}
	for _, uri := range chain[0].URIs {
		if uri.String() == spiffeID {
			return nil
		}
	}
	return fmt.Errorf("the gateway is %v, not %s", chain[0].URIs, spiffeID)
}

// keepSessions lets later connections resume what earlier ones were given.
func (c *client) keepSessions() {
	for _, service := range c.services {
		service.ClientSessionCache = tls.NewLRUClientSessionCache(len(c.services))
	}
}

// connect returns after the handshake; with TLS 1.3 a refusal of our certificate shows with the first read only.
func (c *client) connect() (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	raw, err := dialer.Dial("tcp", c.address)
	if err != nil || len(c.services) == 0 {
		return raw, err
	}
	connection := tls.Client(raw, c.services[c.next.Add(1)%uint64(len(c.services))])
	_ = connection.SetDeadline(time.Now().Add(dialTimeout))
	if err := connection.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	_ = connection.SetDeadline(time.Time{})
	return connection, nil
}

// connectAndProve also sends one byte and waits for it to come back.
func (c *client) connectAndProve() (net.Conn, error) {
	connection, err := c.connect()
	if err != nil {
		return nil, err
	}
	if err := prove(connection); err != nil {
		connection.Close()
		return nil, err
	}
	return connection, nil
}

func prove(connection net.Conn) error {
	_ = connection.SetDeadline(time.Now().Add(dialTimeout))
	if _, err := connection.Write([]byte{42}); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(connection, answer[:]); err != nil {
		return err
	}
	if answer[0] != 42 {
		return errors.New("the echo is not what was sent")
	}
	return connection.SetDeadline(time.Time{})
}

// connectMany opens count connections, a few at a time; those that were opened are returned also with an error.
func connectMany(open func() (net.Conn, error), count int) ([]net.Conn, error) {
	const atOnce = 20
	connections := make([]net.Conn, 0, count)
	for batch := range slices.Chunk(make([]struct{}, count), atOnce) {
		opened := make(chan net.Conn, len(batch))
		failed := make(chan error, len(batch))
		for range batch {
			go func() {
				connection, err := open()
				opened <- connection
				failed <- err
			}()
		}
		var failures []error
		for range batch {
			failures = append(failures, <-failed)
			if connection := <-opened; connection != nil {
				connections = append(connections, connection)
			}
		}
		if err := errors.Join(failures...); err != nil {
			return connections, err
		}
	}
	return connections, nil
}

func describe(connection net.Conn) negotiated {
	secure, is := connection.(*tls.Conn)
	if !is {
		return negotiated{}
	}
	state := secure.ConnectionState()
	return negotiated{
		Version: tls.VersionName(state.Version),
		Cipher:  tls.CipherSuiteName(state.CipherSuite),
		Group:   state.CurveID.String(),
		Chain:   len(state.PeerCertificates),
	}
}
