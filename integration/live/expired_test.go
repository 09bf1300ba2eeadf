// SPDX-License-Identifier: Apache-2.0

package live

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// validFor makes a host's certificate and key that are valid for two hours, from
// then on, signed by the authority in dir: mig certs makes valid ones only.
func validFor(t *testing.T, dir, ip string, from time.Time) (cert, private []byte) {
	t.Helper()
	decode := func(file string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		return block.Bytes
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ca, err := x509.ParseCertificate(decode("ca.pem"))
	must(err)
	caKey, err := x509.ParseECPrivateKey(decode("ca.key"))
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	cert, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "alpha"}, IPAddresses: []net.IP{net.ParseIP(ip)},
		NotBefore: from, NotAfter: from.Add(2 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca, key.Public(), caKey)
	must(err)
	private, err = x509.MarshalECPrivateKey(key)
	must(err)
	return cert, private
}
