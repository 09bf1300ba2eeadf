// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/engine"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/shim/describe"
	"github.com/io-mig/mig/spec/record"
)

// tasksDir is where containerd keeps the bundles of running tasks below its
// state directory, DIR/NAMESPACE/ID (core/runtime/v2, since 1.2).
const tasksDir = "io.containerd.runtime.v2.task"

// errRefused is the exit status of a container that cannot be checkpointed,
// after it was said why.
var errRefused = errors.New("the container cannot be checkpointed")

func checkCommand() *cobra.Command {
	var asJSON bool
	var namespace, state string
	c := &cobra.Command{
		Use:   "check CONTAINER",
		Short: "Say whether a running container can be checkpointed, and name what is in the way",
		Long: `Say whether a running container can be checkpointed, and name what is in the way.

It makes the checks that come first in every checkpoint, without touching the
container. Exit status 1 means that a checkpoint would be refused.`,
		Args: words(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := check(cmd.Context(), state, namespace, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), report)
			} else {
				err = report.write(cmd.OutOrStdout())
			}
			if err == nil && !report.Possible {
				err = fmt.Errorf("%s: %w", args[0], errRefused)
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.Flags().StringVarP(&namespace, "namespace", "n", fromEnv("CONTAINERD_NAMESPACE", "default"), "containerd's namespace of the container")
	c.Flags().StringVar(&state, "state", "/run/containerd", "containerd's state directory")
	return c
}

// checkReport is the outcome of a check.
type checkReport struct {
	Namespace string `json:"namespace"`
	Container string `json:"container"`
	Pid       int    `json:"pid"`
	Possible  bool   `json:"possible"`
	// Findings are in the way of a checkpoint, Warnings are not.
	Findings []record.Finding `json:"findings"`
	Warnings []record.Finding `json:"warnings"`
}

func check(ctx context.Context, state, namespace, id string) (*checkReport, error) {
	j, err := describeRunning(state, namespace, id)
	if err != nil {
		return nil, err
	}
	found, err := engine.Check(ctx, j)
	if err != nil {
		return nil, fmt.Errorf("check container %s: %w", id, err)
	}
	found = append(found, describe.CheckOptions(j.Options)...)
	r := &checkReport{
		Namespace: namespace, Container: id, Pid: j.InitPid, Possible: true,
		Findings: []record.Finding{}, Warnings: []record.Finding{},
	}
	for _, f := range found {
		if f.Warning {
			r.Warnings = append(r.Warnings, f)
		} else {
			r.Findings = append(r.Findings, f)
		}
	}
	r.Possible = len(r.Findings) == 0
	return r, nil
}

// describeRunning finds a container by its bundle and describes it as the shim
// would for a checkpoint.
func describeRunning(state, namespace, id string) (*job.Job, error) {
	bundle, err := findBundle(state, namespace, id)
	if err != nil {
		return nil, err
	}
	return describeBundle(bundle, namespace, id)
}

// describeBundle is describeRunning for a bundle that was found.
func describeBundle(bundle, namespace, id string) (*job.Job, error) {
	var b describe.Bundle
	if err := readJSON(filepath.Join(bundle, describe.BundleFile), &b); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %s was not made by the runtime io.mig.v1: its bundle %s has no %s", id, bundle, describe.BundleFile)
	} else if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := readJSON(filepath.Join(bundle, "config.json"), &spec); err != nil {
		return nil, fmt.Errorf("the container's OCI configuration: %w", err)
	}
	c, err := runtime.Load(b.Root, id)
	if err != nil {
		return nil, err
	}
	status, err := c.Status()
	if err != nil {
		return nil, err
	}
	if status.State != runtime.StateRunning && status.State != runtime.StatePaused {
		return nil, fmt.Errorf("container %s is %s: only a running or a paused one can be checkpointed", id, status.State)
	}
	j, err := describe.Checkpoint(c, bundle, &spec)
	j.Namespace = namespace
	return &j, err
}

// findBundle returns the bundle of a container that has a task.
func findBundle(state, namespace, id string) (string, error) {
	for what, name := range map[string]string{"namespace": namespace, "container": id} {
		if name == "" || name == "." || name == ".." || filepath.Base(name) != name {
			return "", fmt.Errorf("%q is no valid %s", name, what)
		}
	}
	if !filepath.IsAbs(state) {
		return "", fmt.Errorf("containerd's state directory %q is not absolute", state)
	}
	bundle := filepath.Join(state, tasksDir, namespace, id)
	_, err := os.Stat(bundle)
	if err == nil {
		return bundle, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("bundle of container %s: %w", id, err)
	}
	if _, err := os.Stat(filepath.Join(state, tasksDir)); err != nil {
		return "", fmt.Errorf("no tasks of a containerd below %s (--state names another directory): %w", state, err)
	}
	others, _ := filepath.Glob(filepath.Join(state, tasksDir, "*", id)) // errs on a bad pattern only
	if len(others) > 0 {
		return "", fmt.Errorf("container %s is not running in namespace %s, but in %s (-n)", id, namespace, filepath.Base(filepath.Dir(others[0])))
	}
	return "", fmt.Errorf("container %s is not running: there is no %s (-n names a namespace, --state another containerd)", id, bundle)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
