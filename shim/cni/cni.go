// SPDX-License-Identifier: Apache-2.0

// Package cni has CNI plug-ins connect a copy to the networks that its original
// is connected to, with the same addresses, and disconnect what has left.
//
// Who has connected a container leaves a record in libcni's cache: ctr run --cni
// and nerdctl's hooks do, under the id NAMESPACE-CONTAINER. So a container is CNI's if
// there are such records, and the records tell how to disconnect it, also to
// another process.
//
// Sources: the CNI specification 1.1 and its CONVENTIONS.md (args.cni.ips,
// args.cni.mac, the capabilities ips and mac, and IP of CNI_ARGS, which older
// plug-ins know).
package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/io-mig/mig/spec/network"
)

// Defaults of containerd's clients.
const (
	DefaultConfDir = "/etc/cni/net.d"
	DefaultBinDir  = "/opt/cni/bin"
)

// DefaultTimeout bounds one call of a network's plug-ins.
const DefaultTimeout = 30 * time.Second

// Dirs are where configurations and plug-ins lie; Cache is libcni's directory,
// empty: its default. Plug-ins that take longer than Timeout are killed, 0:
// DefaultTimeout.
type Dirs struct {
	Conf, Bin, Cache string
	Timeout          time.Duration
}

func (d Dirs) timeout() time.Duration {
	if d.Timeout > 0 {
		return d.Timeout
	}
	return DefaultTimeout
}

func (d Dirs) plugins() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(filepath.SplitList(d.Bin), d.Cache, nil)
}

// id is under which containerd's clients connect a container.
func id(namespace, container string) string { return namespace + "-" + container }

// Networks are those that a container is connected to: the name of each by that
// of its interface.
func (d Dirs) Networks(namespace, container string) (map[string]string, error) {
	list, err := d.attachments(namespace, container)
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for _, a := range list {
		m[a.IfName] = a.Network
	}
	return m, nil
}

func (d Dirs) attachments(namespace, container string) ([]*libcni.NetworkAttachment, error) {
	list, err := d.plugins().GetCachedAttachments(id(namespace, container))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("CNI's records of container %s: %w", container, err)
	}
	var own []*libcni.NetworkAttachment
	for _, a := range list {
		if a.ContainerID == id(namespace, container) {
			own = append(own, a)
		}
	}
	return own, nil
}

// Problem is a reason why a network cannot be joined here.
type Problem struct{ What, Why, Remedy string }

// Consider looks whether the networks of a request are configured here, with
// their plug-ins. It runs none.
func (d Dirs) Consider(r *network.Request) (found []Problem) {
	if r == nil {
		return nil
	}
	for i := range r.Interfaces {
		n := &r.Interfaces[i]
		if n.Kind != network.CNI {
			continue
		}
		what := fmt.Sprintf("interface %s of the CNI network %s", n.Name, n.To)
		list, err := libcni.LoadNetworkConf(d.Conf, n.To)
		if err != nil {
			found = append(found, Problem{what, err.Error(), "put its configuration into " + d.Conf + ", or name another directory by migd --cni-conf-dir"})
			continue
		}
		for _, p := range list.Plugins {
			if !d.has(p.Network.Type) {
				found = append(found, Problem{what, fmt.Sprintf("there is no plug-in %s in %s", p.Network.Type, d.Bin), "install it, or name another directory by migd --cni-bin-dir"})
			}
		}
	}
	return found
}

func (d Dirs) has(plugin string) bool {
	for _, dir := range filepath.SplitList(d.Bin) {
		if st, err := os.Stat(filepath.Join(dir, filepath.Base(plugin))); err == nil && st.Mode().IsRegular() {
			return true
		}
	}
	return false
}

// Connect connects the network namespace of process pid to the networks of a
// request, with its addresses, but for interfaces that are there already. After an
// error Disconnect is due.
func (d Dirs) Connect(ctx context.Context, namespace, container string, pid int, r *network.Request, m network.Mapping) error {
	if r == nil {
		return nil
	}
	there, err := interfaces(pid)
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	for i := range r.Interfaces {
		if n := &r.Interfaces[i]; n.Kind == network.CNI && !there[n.Name] {
			if err := d.connect(ctx, id(namespace, container), path, n, m); err != nil {
				return fmt.Errorf("CNI network %s for interface %s: %w", n.To, n.Name, err)
			}
		}
	}
	return nil
}

// interfaces lists what is in the network namespace of a process (net/dev: two lines
// of titles, then NAME: and numbers).
func interfaces(pid int) (map[string]bool, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names[strings.TrimSpace(name)] = true
		}
	}
	return names, nil
}

func (d Dirs) connect(ctx context.Context, id, path string, n *network.Interface, m network.Mapping) error {
	list, err := libcni.LoadNetworkConf(d.Conf, n.To)
	if err != nil {
		return err
	}
	ips := addresses(n, m)
	rt := &libcni.RuntimeConf{
		ContainerID: id, NetNS: path, IfName: n.Name,
		Args:           [][2]string{{"IgnoreUnknown", "1"}},
		CapabilityArgs: map[string]any{"ips": ips, "mac": n.MAC},
	}
	if len(ips) == 1 {
		rt.Args = append(rt.Args, [2]string{"IP", strings.Split(ips[0], "/")[0]})
	}
	if n.MAC != "" {
		rt.Args = append(rt.Args, [2]string{"MAC", n.MAC})
	}
	for i, p := range list.Plugins {
		if list.Plugins[i], err = libcni.InjectConf(p, map[string]any{"args": map[string]any{"cni": map[string]any{"ips": ips, "mac": n.MAC}}}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout())
	defer cancel()
	_, err = d.plugins().AddNetworkList(ctx, list, rt)
	return d.inTime(ctx, err)
}

// inTime says that plug-ins were killed, which libcni does not.
func (d Dirs) inTime(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		err = errors.Join(fmt.Errorf("its plug-ins took longer than %s", d.timeout()), err)
	}
	return err
}

// addresses are those that plug-ins are asked for, with the lengths of their
// networks.
func addresses(n *network.Interface, m network.Mapping) (ips []string) {
	for _, p := range n.Addresses {
		if a := m.Of(p.Addr()); !a.IsLinkLocalUnicast() {
			ips = append(ips, netip.PrefixFrom(a, p.Bits()).String())
		}
	}
	return ips
}

// Disconnect takes a container off all networks that it was connected to here. It
// may be repeated, and its namespace may be gone. A connection that did not come to
// its end has left no record, but perhaps an address that is reserved: r is the
// request that it was made for, nil if there was none.
func (d Dirs) Disconnect(ctx context.Context, namespace, container string, r *network.Request) error {
	list, err := d.attachments(namespace, container)
	if err != nil {
		return err
	}
	var errs []error
	known := map[string]bool{}
	for _, a := range list {
		known[a.IfName] = true
		conf, err := libcni.ConfListFromBytes(a.Config)
		if err == nil {
			err = d.remove(ctx, conf, &libcni.RuntimeConf{
				ContainerID: a.ContainerID, NetNS: existing(a.NetNS), IfName: a.IfName, Args: a.CniArgs, CapabilityArgs: a.CapabilityArgs,
			})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take container %s off the CNI network %s: %w", container, a.Network, err))
		}
	}
	if r == nil {
		return errors.Join(errs...)
	}
	for i := range r.Interfaces {
		n := &r.Interfaces[i]
		if n.Kind != network.CNI || known[n.Name] {
			continue
		}
		conf, err := libcni.LoadNetworkConf(d.Conf, n.To)
		if err == nil {
			err = d.remove(ctx, conf, &libcni.RuntimeConf{ContainerID: id(namespace, container), IfName: n.Name, Args: [][2]string{{"IgnoreUnknown", "1"}}})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take container %s off the CNI network %s, which it may not have joined: %w", container, n.To, err))
		}
	}
	return errors.Join(errs...)
}

// remove runs the plug-ins of one network, whatever becomes of the caller.
func (d Dirs) remove(ctx context.Context, conf *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timeout())
	defer cancel()
	return d.inTime(ctx, d.plugins().DelNetworkList(ctx, conf, rt))
}

// existing is a namespace's path if it leads to one: a process's is gone with it.
func existing(path string) string {
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}
