// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/io-mig/mig/layers/kernel/netns"
)

// compareShared looks whether a namespace that is somebody else's, given by its
// path, has the addresses that the source's has: the container's sockets are
// bound to them.
func (s *Subsystem) compareShared() error {
	request, err := s.request()
	if err != nil || request == nil || request.Own {
		return err
	}
	ns, err := open(s.env.Frame.Init)
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netns.Open(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	list, err := h.List(netns.Addresses)
	if err != nil {
		return err
	}
	has := map[netip.Addr]bool{}
	for _, b := range list {
		if a, err := netns.ParseAddress(b); err == nil {
			has[a.Prefix.Addr()] = true
		}
	}
	var errs []error
	for i := range request.Interfaces {
		for _, p := range request.Interfaces[i].Addresses {
			if a := p.Addr(); !has[a] && !a.IsLinkLocalUnicast() {
				errs = append(errs, fmt.Errorf("network: the namespace on this host lacks the address %s, which the source's has on %s", a, request.Interfaces[i].Name))
			}
		}
	}
	return errors.Join(errs...)
}
