// SPDX-License-Identifier: Apache-2.0

// Package describe tells an engine what a container is: the part of a job that
// the shim and a person's `mig check` must not see differently.
package describe

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/runtime"
)

// Checkpoint describes a running or paused container as the source of a
// checkpoint. Where the image goes, and what becomes of the container, is the
// caller's to add.
func Checkpoint(c *runtime.Container, bundle string, spec *specs.Spec) (job.Job, error) {
	j := job.Job{
		Kind: job.Checkpoint, Container: c.ID(), Bundle: bundle, Rootfs: filepath.Join(bundle, "rootfs"),
		SpecPath: filepath.Join(bundle, "config.json"),
		Terminal: spec.Process != nil && spec.Process.Terminal,
		Options:  Options(own(spec.Annotations)),
	}
	return j, Container(&j, c)
}

// Container fills what both kinds of job say of the live container.
func Container(j *job.Job, c *runtime.Container) error {
	j.InitPid = c.Init().Pid()
	j.Cgroups = c.CgroupPaths()
	j.Freezer = freezer(j.Cgroups)
	if j.Freezer == "" {
		return fmt.Errorf("container %s has no cgroup that can be frozen: neither v1's freezer nor v2", j.Container)
	}
	for i, s := range c.Streams() {
		j.Stdio[i] = job.Stream{Dev: s.Dev, Ino: s.Ino, File: -1}
	}
	return nil
}

// freezer picks the cgroup directory that freezes: v1's controller, or the one
// directory of v2.
func freezer(paths map[string]string) string {
	if p := paths["freezer"]; p != "" {
		return p
	}
	return paths[""]
}

// OptionPrefix marks annotations that are policies for checkpoints and
// restores; what follows is the option's name, for example "io.mig/tcp".
const OptionPrefix = "io.mig/"

// AddedForMove is the annotation that lists, separated by commas, those that a move
// to this host has added: policies for that move only. containerd's record of the
// container loses them when it has arrived; the bundle that its shim reads has them
// as long as the task lives.
const AddedForMove = OptionPrefix + "incoming-policies"

// own are a container's annotations without those of the move that brought it here.
// They would come before what is chosen for the next one.
func own(annotations map[string]string) map[string]string {
	out := maps.Clone(annotations)
	for key := range strings.SplitSeq(annotations[AddedForMove], ",") {
		delete(out, key)
	}
	return out
}

// Options are the policies that a container's annotations choose.
func Options(annotations map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range annotations {
		if name, ok := strings.CutPrefix(k, OptionPrefix); ok {
			out[name] = v
		}
	}
	return out
}
