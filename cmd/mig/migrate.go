// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/engine"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/shim/cni"
	"github.com/io-mig/mig/shim/depart"
	"github.com/io-mig/mig/shim/host"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/record"
)

// migrateOptions are the flags of mig migrate.
type migrateOptions struct {
	depart.Options
	containerd, bandwidth, report string
	tcp                           string
	json, all                     bool
	parallel                      int
	copied, shared                []string
	mapIP                         string
	page                          *reportFile // of report
}

func migrateCommand() *cobra.Command {
	var o migrateOptions
	c := &cobra.Command{
		Use:   "migrate CONTAINER|--all HOST[:PORT]|mig://HOST[:PORT][?OPTIONS]",
		Short: "Move a running container to another host",
		Long: `Move a running container to another host.

migd runs on the other host, and both have certificates of one authority (mig
certs). What does not fit is named before anything is touched. Until the copy
runs, every error, and the death of this program, leaves the container running
here; afterwards it is removed here.

HOST may be an address as ctr tasks checkpoint --image-path takes it, whose
options (strategy, downtime, ...) take the place of the flags; then the ended
container is kept here, since another client is at work with it.

With --all every running container of the namespace is moved.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.all {
				return words(1)(cmd, args)
			}
			return words(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Destination = args[len(args)-1]
			if !o.all {
				o.Container = args[0]
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVarP(&o.Namespace, "namespace", "n", fromEnv("CONTAINERD_NAMESPACE", "default"), "containerd's namespace of the container")
	f.StringVar(&o.containerd, "containerd", fromEnv("CONTAINERD_ADDRESS", "/run/containerd/containerd.sock"), "containerd's socket")
	f.StringVar(&o.State, "state", host.DefaultState, "containerd's state directory")
	f.StringVar(&o.Requests, "dir", request.DefaultDir, "directory of mig's state")
	f.StringVar(&o.Strategy, "strategy", control.Auto.Name, "auto, stop-and-copy, pre-copy, post-copy or hybrid")
	f.DurationVar(&o.Downtime, "downtime", 20*time.Millisecond, "how long the container may be stopped, a budget")
	f.DurationVar(&o.Timeout, "timeout", time.Minute, "give up, with the container running here, after that time (0: never)")
	f.StringVar(&o.bandwidth, "bandwidth", "", "most `bytes` per second, for example 100MB (no limit)")
	f.StringVar(&o.Compress, "compress", "auto", "auto, zstd or none")
	f.IntVar(&o.Rounds, "rounds", 0, "most early rounds (the strategy's)")
	f.BoolVar(&o.AutoConverge, "auto-converge", false, "slow the container down while it writes faster than its memory travels")
	f.IntVar(&o.Streams, "streams", 0, "number of connections (chosen by the engine)")
	f.StringSliceVar(&o.copied, "copy-volume", nil, "mount `point` whose content goes along, may be repeated")
	f.StringSliceVar(&o.shared, "shared-volume", nil, "mount `point` whose content the other host has, may be repeated")
	f.StringVar(&o.tcp, "tcp", "", "TCP connections to the outside: keep, close or refuse (the annotation io.mig/tcp, or refuse)")
	f.StringToStringVar(&o.Policies, "policy", nil, "`NAME=VALUE` as in the annotation io.mig/NAME, for this move, may be repeated: "+strings.Join(policy.Names(), ", "))
	f.StringVar(&o.mapIP, "map-ip", "", "addresses that change, `OLD=NEW` and more separated by commas")
	f.StringVar(&o.CNI.Bin, "cni-bin-dir", cni.DefaultBinDir, "directory of this host's CNI plug-ins")
	f.DurationVar(&o.CNI.Timeout, "cni-timeout", cni.DefaultTimeout, "how long plug-ins may take to take the container off one network")
	f.BoolVar(&o.Keep, "keep", false, "leave the ended container here")
	f.StringVar(&o.LogURI, "log-uri", "", "where the container's output goes on the other host, a `URI` such as file:///var/log/web")
	f.StringVar(&o.TLS, "tls", "/etc/mig/tls", "directory of this host's certificate")
	f.StringVar(&o.Peer, "peer", "", "name that the other host's certificate must have (HOST)")
	f.BoolVar(&o.Insecure, "insecure", false, "plain text, for a test on the loopback interface")
	f.BoolVar(&o.all, "all", false, "move every running container of the namespace to the host, the only argument")
	f.IntVar(&o.parallel, "parallel", 2, "with --all: how many at a time; they share the bandwidth")
	f.StringVar(&o.Token, "token", "", "name of the move on both hosts, 32 hexadecimal digits (a random one)")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	f.StringVar(&o.report, "report", "", "write an HTML page with the time line to this `file`")
	c.MarkFlagsMutuallyExclusive("tls", "insecure")
	c.MarkFlagsMutuallyExclusive("all", "token")
	return c
}

// errNotMoved is the exit status of a move whose failure was printed as JSON.
var errNotMoved = errors.New("the container was not moved")

func (o *migrateOptions) run(ctx context.Context, out, progress io.Writer) error {
	if err := o.complete(); err != nil {
		return err
	}
	h, err := host.Dial(ctx, o.containerd)
	if err != nil {
		return err
	}
	defer h.Close()
	o.Host = h
	if o.page, err = openReport(o.report); err != nil {
		return err
	}
	if o.all {
		return o.drain(ctx, out, progress)
	}
	show := newMoveScreen(progress, o.json)
	o.Observe = show.show
	r, err := depart.Move(ctx, o.Options)
	show.end(err)
	unwritten := o.page.write(r)
	if o.json {
		if perr := printJSON(out, r); perr != nil || err == nil {
			return errors.Join(perr, unwritten)
		}
		if r.Moved { // what failed came after that, and says so
			return fmt.Errorf("%s: %w", o.Container, err)
		}
		return fmt.Errorf("%s: %w: %w", o.Container, errNotMoved, err)
	}
	if err == nil {
		_, err = io.WriteString(out, moved(r))
		return errors.Join(err, unwritten)
	}
	return errors.Join(explain(progress, r, err), unwritten)
}

// fromEnv is a variable that containerd's clients read, or else a default.
func fromEnv(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// complete turns what was typed into what depart understands.
func (o *migrateOptions) complete() error {
	o.Tool, o.Describe, o.Check, o.Network = engine.Version, engine.Describe, checkBundle, networkOf
	if address.IsMove(o.Destination) {
		if err := o.fromAddress(); err != nil {
			return err
		}
	}
	for name, paths := range map[string][]string{policy.CopyVolume: o.copied, policy.SharedVolume: o.shared} {
		if len(paths) > 0 {
			o.Policies = policy.Add(o.Policies, map[string]string{name: strings.Join(paths, ",")})
		}
	}
	if o.mapIP != "" {
		o.Policies = policy.Add(o.Policies, map[string]string{policy.MapIP: o.mapIP})
	}
	if o.tcp != "" {
		if !slices.Contains([]string{"keep", "close", "refuse"}, o.tcp) {
			return fmt.Errorf("--tcp %s: want keep, close or refuse", o.tcp)
		}
		o.Policies = policy.Add(o.Policies, map[string]string{policy.TCP: o.tcp})
	}
	if o.bandwidth != "" {
		n, err := units.FromHumanSize(o.bandwidth)
		if err != nil || n <= 0 {
			return fmt.Errorf("--bandwidth %q: want a number of bytes per second such as 100MB", o.bandwidth)
		}
		o.Bandwidth = uint64(n)
	}
	if o.Insecure {
		o.TLS = ""
		return nil
	}
	var err error
	o.TLS, err = filepath.Abs(o.TLS)
	return err
}

// fromAddress takes the options of a mig: address.
func (o *migrateOptions) fromAddress() error {
	m, err := address.ParseMove(o.Destination)
	if err != nil {
		return err
	}
	o.Destination, o.Keep, o.Peer, o.Insecure = m.Host, true, m.Peer, m.Insecure
	o.Rounds, o.Streams, o.AutoConverge = m.Rounds, m.Streams, m.AutoConverge
	if o.Policies, err = policy.Decode(m.Policies); err != nil {
		return err
	}
	if m.Prepared() {
		o.Token = m.Token.String()
	}
	if m.Bandwidth > 0 {
		o.bandwidth = strconv.FormatInt(m.Bandwidth, 10)
	}
	for _, given := range []struct {
		from string
		to   *string
	}{{m.Strategy, &o.Strategy}, {m.Compress, &o.Compress}, {m.TLS, &o.TLS}} {
		if given.from != "" {
			*given.to = given.from
		}
	}
	if m.Downtime > 0 {
		o.Downtime = m.Downtime
	}
	if m.Timeout > 0 {
		o.Timeout = m.Timeout
	}
	return nil
}

func checkBundle(ctx context.Context, bundle, namespace, id string, to address.Move) ([]record.Finding, error) {
	j, err := describeMove(bundle, namespace, id, to)
	if err != nil {
		return nil, err
	}
	return engine.Check(ctx, j)
}

func networkOf(bundle, namespace, id string, to address.Move) (*network.Request, error) {
	j, err := describeMove(bundle, namespace, id, to)
	if err != nil {
		return nil, err
	}
	return engine.Network(j)
}

// describeMove describes a container as its shim would for a move.
func describeMove(bundle, namespace, id string, to address.Move) (*job.Job, error) {
	j, err := describeBundle(bundle, namespace, id)
	if err != nil {
		return nil, err
	}
	chosen, err := policy.Decode(to.Policies)
	if err != nil {
		return nil, err
	}
	j.Image, j.Options = to.String(), policy.Add(j.Options, chosen)
	return j, nil
}

// explain prints what a pre-flight found as a list, and returns a short error.
func explain(w io.Writer, r *depart.Report, err error) error {
	var refused *control.PreflightError
	if len(r.Findings) == 0 || !errors.As(err, &refused) {
		return err
	}
	report := checkReport{Container: r.Container, Findings: r.Findings}
	if werr := report.writeRefusal(w, "moved"); werr != nil {
		return werr
	}
	return fmt.Errorf("%s: %w", r.Container, errNotMoved)
}

// moved is the last word on a move.
func moved(r *depart.Report) string {
	s := fmt.Sprintf("%s has moved to %s in %s", oneLine(r.Container), oneLine(r.Destination), took(millis(r.TotalMS)))
	if r.DowntimeMS > 0 {
		s += ", stopped for " + took(millis(r.DowntimeMS))
	}
	switch n := len(r.Rounds); n {
	case 0:
	case 1:
		s += ", 1 round before"
	default:
		s += fmt.Sprintf(", %d rounds before", n)
	}
	s += ", " + size(r.Bytes) + " sent"
	if r.ImageBytes > 0 {
		s += " and " + size(r.ImageBytes) + " of its image"
	}
	s += fmt.Sprintf(" (%s)\n", r.Strategy)
	for _, w := range r.Warnings {
		s += "warning: " + indent(plain(w), "  ") + "\n"
	}
	return s
}

func millis(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
