// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Bundles makes bundles of one program. All of them are below one directory.
type Bundles struct {
	Dir     string // exists
	Runc    string // path of runc, whose default spec is the base
	Program string // static, becomes /victim
	Cgroup  string // parent of the containers' cgroups, for example "/bench"
	// Edit changes a bundle's spec last. May be nil.
	Edit func(*specs.Spec)
}

// ProgramPath is where the program is in a container.
const ProgramPath = "/victim"

// New makes a bundle that runs a command line. Every driver gets the same
// spec: runc's own default, without a terminal and in the host's network
// namespace, since CRIU needs firewall tools for any other: its best case.
func (b Bundles) New(id string, args []string) (*Container, error) {
	dir := filepath.Join(b.Dir, id)
	if err := b.fill(dir, id, args); err != nil {
		return nil, fmt.Errorf("bundle %s: %w", dir, err)
	}
	return &Container{ID: id, Bundle: dir}, nil
}

func (b Bundles) fill(dir, id string, args []string) error {
	root := filepath.Join(dir, "rootfs")
	for _, sub := range []string{"proc", "sys", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(filepath.Join(root, ProgramPath), b.Program); err != nil {
		return err
	}
	if out, err := exec.Command(b.Runc, "spec", "--bundle", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	path := filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return err
	}
	spec.Process.Terminal, spec.Process.Args = false, args
	spec.Root.Readonly = false
	spec.Linux.CgroupsPath = filepath.Join(b.Cgroup, id)
	var namespaces []specs.LinuxNamespace
	for _, n := range spec.Linux.Namespaces {
		if n.Type != specs.NetworkNamespace {
			namespaces = append(namespaces, n)
		}
	}
	spec.Linux.Namespaces = namespaces
	if b.Edit != nil {
		b.Edit(&spec)
	}
	if raw, err = json.Marshal(&spec); err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o600)
}

// copyFile makes a program of its own for each bundle: an image is not to
// depend on another container's files.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
