// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/request/identity/authority"
)

// defaultAuthority is where the authority's files are unless --dir says
// otherwise: on one machine of a site, which need not run containers.
const defaultAuthority = "/etc/mig/ca"

const day = 24 * time.Hour

// soon is how long before its end a certificate is pointed out.
const soon = 30 * day

func certsCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "certs",
		Short: "Make the certificates by which hosts know each other",
		Long: `Make the certificates by which hosts know each other.

One machine keeps the authority. It makes a directory for each host, which is
copied to the host's /etc/mig/tls. Hosts read the files again for every
connection: nothing has to be restarted after a change.`,
		// With a function, a subcommand that is not known is an error.
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.PersistentFlags().StringVar(&dir, "dir", defaultAuthority, "directory of the authority")
	c.AddCommand(certsInit(&dir), certsHost(&dir), certsRevoke(&dir), certsList(&dir))
	return c
}

func certsInit(dir *string) *cobra.Command {
	var name string
	var days int
	var rotate bool
	c := &cobra.Command{
		Use:   "init",
		Short: "Make the authority that signs the hosts' certificates",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			valid, err := validity(days)
			if err != nil {
				return err
			}
			if name == "" {
				return errors.New("--name: an authority needs one")
			}
			cert, err := authority.Init(*dir, name, valid, rotate)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "authority %q in %s, valid until %s\n", cert.Subject.CommonName, *dir, until(cert))
			if !rotate {
				return nil
			}
			a, err := authority.Open(*dir)
			if err != nil {
				return err
			}
			fmt.Fprintln(out, "copy the new ca.pem to every host before you make certificates with it")
			return a.Share()
		},
	}
	c.Flags().StringVar(&name, "name", "mig", "name of the authority")
	c.Flags().IntVar(&days, "days", 3650, "how long it is valid")
	c.Flags().BoolVar(&rotate, "rotate", false, "replace the key of the authority that is there; what it signed stays valid")
	return c
}

func certsHost(dir *string) *cobra.Command {
	var names, addresses []string
	var days int
	c := &cobra.Command{
		Use:   "host NAME",
		Short: "Make the certificate of a host",
		Long: `Make the certificate of a host.

NAME is what people type after mig migrate, and so are --ip and --dns. A second
certificate for the same NAME replaces the first; the first stays valid until it
runs out, or until it is revoked before the second is made.`,
		Args: words(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			valid, err := validity(days)
			if err != nil {
				return err
			}
			for _, a := range addresses {
				if net.ParseIP(a) == nil {
					return fmt.Errorf("--ip %s: this is no address (--dns is for names)", a)
				}
			}
			a, err := authority.Open(*dir)
			if err != nil {
				return err
			}
			cert, where, err := a.Host(args[0], append(names, addresses...), valid)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "host %s, valid until %s: copy the files of %s to its /etc/mig/tls\n", args[0], until(cert), where)
			return nil
		},
	}
	c.Flags().StringSliceVar(&addresses, "ip", nil, "address of the host, may be repeated")
	c.Flags().StringSliceVar(&names, "dns", nil, "further name of the host, may be repeated")
	c.Flags().IntVar(&days, "days", 365, "how long the certificate is valid")
	return c
}

func certsRevoke(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME|FILE",
		Short: "Have a host's certificate refused by the others",
		Args:  words(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := authority.Open(*dir)
			if err != nil {
				return err
			}
			cert, err := a.Revoke(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "the certificate of %s with the serial number %s is revoked: copy %s/revoked.pem to every host's /etc/mig/tls\n",
				oneLine(cert.Subject.CommonName), cert.SerialNumber.Text(16), *dir)
			return nil
		},
	}
}

func certsList(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Show the hosts' certificates and when they run out",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := authority.Open(*dir)
			if err != nil {
				return err
			}
			hosts, err := a.Hosts()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "HOST\tSERIAL\tUNTIL\tSTATE\tNAMES")
			for _, h := range hosts {
				cert, err := a.Certificate(h)
				if err != nil {
					return err
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", h, cert.SerialNumber.Text(16), until(cert), state(a, cert, time.Now()), namesIn(cert))
			}
			return w.Flush()
		},
	}
}

// validity is a number of days as a time. Nobody wants a century, which would
// overflow before long.
func validity(days int) (time.Duration, error) {
	const most = 36500
	if days < 1 || days > most {
		return 0, fmt.Errorf("--days %d: a certificate is valid for 1 to %d days", days, most)
	}
	return time.Duration(days) * day, nil
}

// namesIn are those that people may type for the host.
func namesIn(cert *x509.Certificate) string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return oneLine(strings.Join(names, ", "))
}

func until(cert *x509.Certificate) string { return cert.NotAfter.Local().Format(time.DateOnly) }

func state(a *authority.Authority, cert *x509.Certificate, now time.Time) string {
	switch left := cert.NotAfter.Sub(now); {
	case a.Revoked(cert):
		return "revoked"
	case left < 0:
		return "expired"
	case left < soon:
		return fmt.Sprintf("ends in %d days", int(left/day))
	}
	return "valid"
}
