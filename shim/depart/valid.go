// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/shim/host"
	"github.com/io-mig/mig/spec/network"
)

// valid checks what a person has typed, as far as nobody has to be asked.
func (o *Options) valid() error {
	var errs []error
	if o.Container == "" || o.Destination == "" {
		errs = append(errs, errors.New("a move needs a container and a destination"))
	}
	if _, err := control.StrategyByName(o.Strategy); err != nil {
		errs = append(errs, err)
	}
	switch o.Compress {
	case "auto", "zstd", "none":
	default:
		errs = append(errs, fmt.Errorf("compression %q: there are auto, zstd and none", o.Compress))
	}
	errs = append(errs, policy.Valid(o.Policies), o.numbers(), host.ValidLogURI(o.LogURI))
	if o.AutoConverge && o.Strategy != control.Auto.Name && o.Strategy != control.PreCopy.Name {
		errs = append(errs, fmt.Errorf("auto-converge is of strategies that make rounds until the rest is small, auto and pre-copy, not of %s", o.Strategy))
	}
	errs = append(errs, o.validDestination())
	if o.Insecure && !loopback(o.hostname()) {
		errs = append(errs, fmt.Errorf("--insecure is for tests on the loopback interface, not for %s: make certificates with mig certs", o.hostname()))
	}
	return errors.Join(errs...)
}

func (o *Options) numbers() error {
	var errs []error
	if o.Downtime < 0 || o.Timeout < 0 || o.Streams < 0 || o.Rounds < 0 {
		errs = append(errs, errors.New("downtime, time-out, rounds and number of streams cannot be negative"))
	}
	if o.Rounds > address.MaxRounds {
		errs = append(errs, fmt.Errorf("%d rounds are too many: at most %d (--rounds)", o.Rounds, address.MaxRounds))
	}
	if o.Streams > address.MaxStreams {
		errs = append(errs, fmt.Errorf("%d connections are too many: at most %d (--streams)", o.Streams, address.MaxStreams))
	}
	return errors.Join(errs...)
}

func (o *Options) validDestination() error {
	if strings.Contains(o.Destination, "://") {
		return fmt.Errorf("destination %q: want HOST, HOST:PORT or %s://HOST[:PORT][?OPTIONS]", o.Destination, address.MoveScheme)
	}
	_, port, err := net.SplitHostPort(o.address())
	if err != nil {
		return fmt.Errorf("destination %q: %w", o.Destination, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("destination %q: %q is no port", o.Destination, port)
	}
	return nil
}

// unmapped refuses a mapping of addresses, chosen for this move, of which the container
// has none: a mistyped one would leave it the address that it has. Annotations are
// for every move, in either direction. r is nil where nothing of the network goes
// along.
func unmapped(chosen string, r *network.Request) error {
	m, err := network.ParseMapping(chosen)
	if err != nil || r == nil || !r.Own {
		return err
	}
	var has []netip.Addr
	for i := range r.Interfaces {
		for _, a := range r.Interfaces[i].Addresses {
			has = append(has, a.Addr())
		}
	}
	var missing []string
	for old := range m {
		if !slices.Contains(has, old) {
			missing = append(missing, old.String())
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	which := "none"
	if len(has) > 0 {
		which = strings.Trim(fmt.Sprint(has), "[]")
	}
	return fmt.Errorf("%s: no interface of the container has the address %s (they have %s)", network.OptionMap, strings.Join(missing, ", "), which)
}
