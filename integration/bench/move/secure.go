// SPDX-License-Identifier: Apache-2.0

package move

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"time"
)

// securing makes a certificate, and returns what makes TLS 1.3 of either end of a
// connection with it, with crypto/tls as it comes: what bulk data over TLS cost here
// at least.
func securing() (func(c net.Conn, client bool) net.Conn, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"stream"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "stream",
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
	return func(c net.Conn, client bool) net.Conn {
		if client {
			return tls.Client(c, config)
		}
		return tls.Server(c, config)
	}, nil
}
