// SPDX-License-Identifier: Apache-2.0

// Package identity loads who this host is to other hosts: TLS 1.3, both ends
// with certificates of one private authority.
//
// A directory holds
//
//	ca.pem       certificates of the authority, one or several (to rotate it)
//	host.pem     this host's certificate, and intermediate ones behind it
//	host.key     its private key; nobody but its owner may read it
//	revoked.pem  may be missing: what is not accepted any more, certificates
//	             (CERTIFICATE) or lists signed by the authority (X509 CRL)
//
// All are read again at every handshake, so that replacing them (by rename)
// takes effect without a restart.
package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Names of the files.
const (
	CAFile      = "ca.pem"
	CertFile    = "host.pem"
	KeyFile     = "host.key"
	RevokedFile = "revoked.pem"
)

// maxFile bounds each file, in bytes.
const maxFile = 4 << 20

// Server is the configuration of the end that accepts: its peer has to show a
// certificate of the authority. The files are checked now and read again at
// every handshake.
func Server(dir string) (*tls.Config, error) {
	if _, err := load(dir); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m, err := load(dir)
			if err != nil {
				return nil, err
			}
			c := m.config()
			c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, m.authority
			return c, nil
		},
	}, nil
}

// Client is the configuration for one connection to host, a name or an IP
// address that the peer's certificate must have. Ask for a new one before each
// connection: the files are read now.
func Client(dir, host string) (*tls.Config, error) {
	if host == "" {
		return nil, errors.New("tls: the peer's name is not known")
	}
	m, err := load(dir)
	if err != nil {
		return nil, err
	}
	c := m.config()
	c.RootCAs, c.ServerName = m.authority, host
	return c, nil
}

// material is what a directory held when it was read.
type material struct {
	authority *x509.CertPool
	host      tls.Certificate
	revoked   revocations
}

func (m *material) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{m.host},
		// No resumption: a ticket would outlive a revocation.
		SessionTicketsDisabled: true,
		VerifyConnection:       m.revoked.check,
		// Small records at the beginning, for someone who waits for the first byte,
		// only cost time here.
		DynamicRecordSizingDisabled: true,
	}
}

func load(dir string) (*material, error) {
	cas, err := certificates(filepath.Join(dir, CAFile))
	if err != nil {
		return nil, err
	}
	m := &material{authority: x509.NewCertPool()}
	for _, c := range cas {
		m.authority.AddCert(c)
	}
	if m.host, err = hostPair(dir); err != nil {
		return nil, err
	}
	m.revoked, err = loadRevoked(filepath.Join(dir, RevokedFile), cas, time.Now())
	return m, err
}

func hostPair(dir string) (tls.Certificate, error) {
	certFile, keyFile := filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile)
	st, err := os.Stat(keyFile)
	if err != nil {
		return tls.Certificate{}, explain(err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return tls.Certificate{}, fmt.Errorf("tls: others may read the private key %s (its mode is %#o): chmod 600 it", keyFile, st.Mode().Perm())
	}
	cert, err := read(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := read(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls: %s and %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}

// certificates reads a file that must hold one at least.
func certificates(file string) ([]*x509.Certificate, error) {
	b, err := read(file)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("tls: %s: %w", file, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("tls: %s holds no certificate", file)
	}
	return out, nil
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, explain(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", file, maxFile)
	}
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return b, nil
}

// explain adds the remedy to a missing file.
func explain(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tls: %w: make this host's certificate with mig certs", err)
	}
	return fmt.Errorf("tls: %w", err)
}
