// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// revocations are the certificates that are not accepted, by their issuer's
// name and their serial number, which together name a certificate (RFC 5280,
// section 4.1.2.2).
type revocations map[certID]bool

type certID struct{ issuer, serial string }

// ErrRevoked is wrapped where a peer's certificate was revoked.
var ErrRevoked = errors.New("the certificate was revoked")

// check is a tls.Config's VerifyConnection: every certificate of each verified
// chain must be good, or the chain does not count.
func (r revocations) check(s tls.ConnectionState) error {
	err := errors.New("tls: the peer has shown no certificate of the authority")
	for _, chain := range s.VerifiedChains {
		if err = r.checkChain(chain); err == nil {
			return nil
		}
	}
	return err
}

func (r revocations) checkChain(chain []*x509.Certificate) error {
	for _, c := range chain {
		if r[idOf(c)] {
			return fmt.Errorf("tls: %w: %s, serial number %s", ErrRevoked, c.Subject, c.SerialNumber.Text(16))
		}
	}
	return nil
}

func idOf(c *x509.Certificate) certID {
	return certID{issuer: string(c.RawIssuer), serial: c.SerialNumber.String()}
}

// loadRevoked reads the file if there is one. A list that is not the authority's
// or out of date is an error: whoever has lists means them.
func loadRevoked(file string, cas []*x509.Certificate, now time.Time) (revocations, error) {
	b, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := revocations{}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("tls: %s: %w", file, err)
			}
			r[idOf(c)] = true
		case "X509 CRL":
			if err := r.addList(block.Bytes, cas, now); err != nil {
				return nil, fmt.Errorf("tls: %s: %w", file, err)
			}
		default:
			return nil, fmt.Errorf("tls: %s: a block of type %q, want CERTIFICATE or X509 CRL", file, block.Type)
		}
	}
	return r, nil
}

func (r revocations) addList(der []byte, cas []*x509.Certificate, now time.Time) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	if !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
		return fmt.Errorf("the revocation list of %s should have been replaced on %s", list.Issuer, list.NextUpdate.Format(time.RFC3339))
	}
	for _, ca := range cas {
		if list.CheckSignatureFrom(ca) != nil {
			continue
		}
		for _, e := range list.RevokedCertificateEntries {
			r[certID{issuer: string(list.RawIssuer), serial: e.SerialNumber.String()}] = true
		}
		return nil
	}
	return fmt.Errorf("the revocation list of %s is not signed by the authority of %s", list.Issuer, CAFile)
}
