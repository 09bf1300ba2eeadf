// SPDX-License-Identifier: Apache-2.0

package nerdctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/go-cni"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Networks is the annotation that names the networks of a container, as a JSON list.
const Networks = "nerdctl/networks"

// Where a host has its CNI networks and plug-ins.
const (
	configurations = "/etc/cni/net.d"
	plugins        = "/opt/cni/bin"
)

// WithHooks has `PROGRAM internal oci-hook EVENT` connect a container to its networks
// and take it off them, as nerdctl's `run` has itself do it.
func WithHooks(program string) oci.SpecOpts {
	hook := func(event string) []specs.Hook {
		return []specs.Hook{{Path: program, Args: []string{"nerdctl", "internal", "oci-hook", event}, Env: os.Environ()}}
	}
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Hooks = &specs.Hooks{CreateRuntime: hook("createRuntime"), Poststop: hook("postStop")}
		return nil
	}
}

// Hook is `nerdctl internal oci-hook EVENT`, whose standard input is the container's
// state: it has CNI connect the container to the networks of its annotations, under
// the id NAMESPACE-CONTAINER, with the addresses that annotations ask for.
func Hook(event string, in io.Reader) error {
	var state specs.State
	if err := json.NewDecoder(in).Decode(&state); err != nil {
		return err
	}
	a := state.Annotations
	var networks []string
	if err := json.Unmarshal([]byte(a[Networks]), &networks); err != nil {
		return fmt.Errorf("annotation %s: %w", Networks, err)
	}
	opts := []cni.Opt{cni.WithPluginDir([]string{plugins})}
	for _, name := range networks {
		conf, err := configuration(name)
		if err != nil {
			return err
		}
		opts = append(opts, cni.WithConfListBytes(conf))
	}
	c, err := cni.New(opts...)
	if err != nil {
		return err
	}
	asked := []cni.NamespaceOpts{cni.WithLabels(map[string]string{"IgnoreUnknown": "1"}), cni.WithArgs("NERDCTL_CNI_DHCP_HOSTNAME", a["nerdctl/hostname"])}
	for annotation, arg := range map[string]string{"nerdctl/ip": "IP", "nerdctl/mac-address": "MAC"} {
		if a[annotation] != "" {
			asked = append(asked, cni.WithArgs(arg, a[annotation]))
		}
	}
	if ip6 := a["nerdctl/ip6"]; ip6 != "" {
		asked = append(asked, cni.WithCapability("ips", []string{ip6}))
	}
	ctx, id := context.Background(), a["nerdctl/namespace"]+"-"+state.ID
	switch event {
	case "createRuntime":
		_ = c.Remove(ctx, id, "", asked...) // what a crash has left
		_, err = c.Setup(ctx, id, fmt.Sprintf("/proc/%d/ns/net", state.Pid), asked...)
		return err
	case "postStop":
		return c.Remove(ctx, id, "", asked...)
	}
	return fmt.Errorf("event %q", event)
}

// configuration finds a network by its name.
func configuration(name string) ([]byte, error) {
	files, err := os.ReadDir(configurations)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		b, err := os.ReadFile(configurations + "/" + f.Name())
		var named struct{ Name string }
		if err == nil && json.Unmarshal(b, &named) == nil && named.Name == name {
			return b, nil
		}
	}
	return nil, errors.New("there is no network " + name)
}
