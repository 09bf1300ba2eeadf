// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"

	"github.com/io-mig/mig/layers/request/identity"
)

// unreached says what a person does about a destination that cannot be spoken to:
// errors of the network and of TLS name what is the matter, and no remedy.
func (m *mover) unreached(err error) error {
	if remedy := m.o.remedy(err); remedy != "" {
		return fmt.Errorf("%w (%s)", err, remedy)
	}
	return err
}

func (o *Options) remedy(err error) string {
	var (
		name      *net.DNSError
		certOf    x509.HostnameError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		remote    *net.OpError
	)
	const again = "mig certs host NAME makes a new one"
	switch {
	case errors.As(err, &name):
		return "give its address instead, and the name in its certificate by --peer"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "is migd running there, and on this port? HOST:PORT names another"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "is that the address of the host, and is the host up?"
	case errors.As(err, &certOf):
		return "name it as its certificate does, say which name that is by --peer, or make it another: mig certs host NAME --ip ADDRESS"
	case errors.As(err, &authority):
		return fmt.Sprintf("its certificate is of another authority than those in %s/ca.pem of this host: make both with one mig certs", o.TLS)
	case errors.Is(err, identity.ErrRevoked):
		return again
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has run out, or a clock is wrong: " + again
	case errors.As(err, &remote) && remote.Op == "remote error": // crypto/tls calls a peer's alert so
		return fmt.Sprintf("that host refuses the certificate in %s of this one, the log of its migd says why: %s", o.TLS, again)
	case errors.Is(err, fs.ErrNotExist) && !o.Insecure:
		return "--tls names another directory"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "it has closed the connection: the log of its migd says why"
	}
	return ""
}
