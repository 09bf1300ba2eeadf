// SPDX-License-Identifier: Apache-2.0

// Command migd takes containers in that other hosts move here.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/engine"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/enginepipe"
	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/shim/cni"
)

func main() { os.Exit(run(os.Args[1:])) }

// config is what the flags say.
type config struct {
	containerd, listen, tls, metrics, state, requests string
	insecure, debug                                   bool
	namespaces                                        []string
	snapshotters                                      map[string]string
	cni                                               cni.Dirs
}

// run is the program as a function; it returns the exit status.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	c := command()
	c.SetArgs(args)
	if err := c.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "migd:", err)
		return 1
	}
	return 0
}

func command() *cobra.Command {
	var o config
	c := &cobra.Command{
		Use:   "migd",
		Short: "Take in the containers that other hosts move here",
		Long: `Take in the containers that other hosts move here.

The other hosts are those with a certificate of the same authority (mig certs).
A container that is on its way bears the label io.mig/incoming; what a migd that
died has left of one is finished or removed at the next start.`,
		Version: fmt.Sprintf("%s, build %s", engine.Version, enginepipe.Build),
		Args:    cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.valid(); err != nil {
				return err
			}
			return serve(cmd.Context(), &o)
		},
	}
	c.SetVersionTemplate("migd {{.Version}}\n")
	f := c.Flags()
	f.StringVar(&o.containerd, "containerd", "/run/containerd/containerd.sock", "containerd's socket")
	f.StringVar(&o.listen, "listen", ":"+address.DefaultPort, "address to listen on")
	f.StringVar(&o.tls, "tls", "/etc/mig/tls", "directory of this host's certificate")
	f.BoolVar(&o.insecure, "insecure", false, "plain text, for a test on the loopback interface")
	f.StringVar(&o.metrics, "metrics", "", "address that serves Prometheus metrics at /metrics (none)")
	f.StringVar(&o.state, "state", "/run/migd", "directory of sockets")
	f.StringVar(&o.requests, "requests", request.DefaultDir, "directory of mig's state")
	f.StringSliceVar(&o.namespaces, "namespace", nil, "containerd's namespace that containers may come to, may be repeated (all)")
	f.StringToStringVar(&o.snapshotters, "snapshotter", nil, "`FROM=TO`: use another snapshotter than the source's, may be repeated")
	f.StringVar(&o.cni.Conf, "cni-conf-dir", cni.DefaultConfDir, "directory of the configurations of CNI networks")
	f.StringVar(&o.cni.Bin, "cni-bin-dir", cni.DefaultBinDir, "directory of CNI plug-ins")
	f.DurationVar(&o.cni.Timeout, "cni-timeout", cni.DefaultTimeout, "how long CNI plug-ins may take for one network")
	f.BoolVar(&o.debug, "debug", false, "log more")
	return c
}

// valid checks what a person has typed.
func (o *config) valid() error {
	host, _, err := net.SplitHostPort(o.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w (want [ADDRESS]:PORT)", err)
	}
	ip := net.ParseIP(host)
	if o.insecure && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("--insecure is for tests on the loopback interface, not for %q: make certificates with mig certs", o.listen)
	}
	if o.insecure {
		o.tls = ""
	} else {
		if o.tls, err = filepath.Abs(o.tls); err != nil {
			return err
		}
		if _, err := identity.Server(o.tls); err != nil {
			return err
		}
	}
	for _, dir := range []string{o.state, o.requests} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("%q is no absolute directory", dir)
		}
	}
	for _, ns := range o.namespaces {
		if strings.ContainsAny(ns, "/ ") || ns == "" {
			return errors.New("--namespace: no namespace is called " + ns)
		}
	}
	return nil
}

func logger(debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}
