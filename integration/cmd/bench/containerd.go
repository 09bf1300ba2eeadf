// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/bench/victim"
	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// containerd is the fixed cost as containerd's clients see it: both runtimes
// behind the same daemon, with the image in a directory of the client's choice.
func containerd(ctx context.Context, b *bench) (err error) {
	s := b.report.Add("Fixed cost through containerd: 1 MB",
		"containerd 2.4's task service, io.mig.v1 and io.containerd.runc.v2 in turn: shim processes, snapshots and events included.")
	var path string
	if b.peer != nil {
		path = filepath.Join(b.tree.Root(), "integration", ".cache", "criu", "bin")
	}
	d, err := daemon.Start(ctx, b.tree, daemon.Config{Version: daemon.V24})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if path != "" {
		if err := os.Symlink(filepath.Join(path, "criu"), filepath.Join(d.Dir, "path", "criu")); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(b.scope.Dir, "image-")
	if err != nil {
		return err
	}
	recipe := image.Image{Name: "mig.test/victim:1", Command: []string{driver.ProgramPath}, Extra: map[string]string{driver.ProgramPath: b.program}}
	archive, err := recipe.Write(dir)
	if err != nil {
		return err
	}
	if err := d.Import(ctx, archive); err != nil {
		return err
	}
	conf := victim.Config{Megabytes: 1, Spin: true}
	through := func(runtime string) (*driver.Containerd, error) {
		return driver.NewContainerd(d.Address, d.Namespace, d.Snapshotter, runtime, recipe.Name, conf.Args(driver.ProgramPath))
	}
	migDriver, err := through("io.mig.v1")
	if err != nil {
		return err
	}
	defer migDriver.Close()
	runcDriver, err := through("io.containerd.runc.v2")
	if err != nil {
		return err
	}
	defer runcDriver.Close()
	mig := &entrant{driver: migDriver, cycles: cycles{name: migDriver.Name()}}
	runc := &entrant{driver: runcDriver, cycles: cycles{name: runcDriver.Name()}}
	all := []*entrant{mig}
	if b.peer != nil {
		all = append(all, runc)
	}
	b.contest(ctx, s, conf, all...)
	for _, e := range all {
		rows(s, &e.cycles)
	}
	ratio(s, mig, runc)
	return nil
}
