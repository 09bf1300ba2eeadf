// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/bench/move"
	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/victim"
	"github.com/io-mig/mig/integration/internal/repo"
	"github.com/io-mig/mig/integration/internal/scope"
)

// bench is what all sections share.
type bench struct {
	options
	report  *report.Report
	tree    repo.Tree
	scope   scope.Scope
	images  string // directory for images: plain, unless a section says otherwise
	plain   string // a tmpfs of 4 KiB pages
	huge    string // a tmpfs of huge pages; empty: this kernel has none
	mounts  []string
	program string // the workload
	bundles driver.Bundles
	mig     *driver.Mig
	peer    *driver.Runc // nil: it cannot be had here
	kdat    *driver.Kdat
	world   *move.World // of live moves only
	serial  int         // numbers containers and images
	printed int         // sections
}

// path is the PATH of everything that is started.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func newBench(ctx context.Context, r *report.Report, o options) (_ *bench, err error) {
	b := &bench{options: o, report: r}
	if b.tree, err = repo.Find(); err != nil {
		return nil, err
	}
	if b.scope, err = scope.New(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if err := b.openImages(); err != nil {
		return nil, err
	}
	if b.program, err = victim.Build(b.scope.Dir); err != nil {
		return nil, err
	}
	for _, dir := range []string{"bundles", "work", "tmp"} {
		if err := os.Mkdir(filepath.Join(b.scope.Dir, dir), 0o711); err != nil {
			return nil, err
		}
	}
	b.bundles = driver.Bundles{
		Dir: filepath.Join(b.scope.Dir, "bundles"), Runc: b.tree.Tool("runc"), Program: b.program, Cgroup: "/" + b.scope.Name,
	}
	b.mig = &driver.Mig{Program: cmp.Or(o.shim, b.tree.Bin("containerd-shim-mig-v1")), Namespace: b.scope.Name, Env: b.environ(path)}
	if err := b.mig.Open(b.scope.Dir); err != nil {
		return nil, err
	}
	b.versions(ctx)
	return b, b.findPeer(ctx)
}

// openImages makes the places for images, for all contestants alike.
func (b *bench) openImages() (err error) {
	if b.plain, err = b.mountTmpfs(hugeNever); err != nil {
		return err
	}
	if b.huge, err = b.mountTmpfs(hugeWithinSize); err != nil {
		b.note(fmt.Sprintf("There is no tmpfs of huge pages (%v): its sections are left out.", err))
	}
	b.images = b.plain
	return nil
}

// flush prints the sections that are complete and saves the report, so that a
// later failure costs nothing that was measured.
func (b *bench) flush() error {
	for ; b.printed < len(b.report.Sections); b.printed++ {
		b.report.Sections[b.printed].Print(os.Stdout)
	}
	return b.report.Save(b.out)
}

// environ marks what is started, so that what leaks can be found.
func (b *bench) environ(path string) []string {
	return []string{"PATH=" + path, "TMPDIR=" + filepath.Join(b.scope.Dir, "tmp"), "HOME=/root", "LANG=C.UTF-8", b.scope.Mark()}
}

// findPeer has CRIU unpacked. Without it the rest is measured all the same.
func (b *bench) findPeer(ctx context.Context) error {
	if !b.options.peer {
		b.note("The peer, runc + CRIU, was left out by -no-peer.")
		return nil
	}
	cmd := exec.CommandContext(ctx, filepath.Join(b.tree.Root(), "hack", "criu.sh"))
	var why strings.Builder
	cmd.Stderr = &why
	out, err := cmd.Output()
	if err != nil {
		b.note(fmt.Sprintf("The peer, runc + CRIU, could not be had (%v): %s", err, strings.TrimSpace(why.String())))
		return nil
	}
	criu := strings.TrimSpace(string(out))
	b.report.Versions["CRIU"] = firstLine(ctx, criu, "--version")
	if b.kdat, err = driver.NewKdat(ctx, criu); err != nil {
		return err
	}
	if b.kdat.Ours() {
		b.note("/run is no tmpfs here, so CRIU would probe the kernel again in every call. It was given the cache that it keeps elsewhere, but for the rows that say otherwise.")
	}
	b.peer = &driver.Runc{
		Program: b.tree.Tool("runc"), Root: filepath.Join(b.scope.Dir, "runc"), Work: filepath.Join(b.scope.Dir, "work"),
		Env: b.environ(filepath.Dir(criu) + ":" + path),
	}
	return b.kdat.Put()
}

func (b *bench) note(text string) {
	b.report.Machine.Notes = append(b.report.Machine.Notes, text)
	fmt.Println(text)
}

func (b *bench) versions(ctx context.Context) {
	b.report.Versions["runc"] = firstLine(ctx, b.tree.Tool("runc"), "--version")
	b.report.Versions["containerd"] = firstLine(ctx, b.tree.Tool("containerd"), "--version")
	b.report.Versions["mig"] = firstLine(ctx, "git", "-C", b.tree.Root(), "describe", "--always", "--dirty")
}

func firstLine(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// workers is how many threads the references copy with: as many as mig's
// engine on this machine.
func (b *bench) workers() int { return max(2, min(runtime.NumCPU(), 8)) }

// container makes a bundle with a new id.
func (b *bench) container(c victim.Config) (*driver.Container, error) {
	b.serial++
	return b.bundles.New("c"+strconv.Itoa(b.serial), c.Args(driver.ProgramPath))
}

// image names a directory for an image that is not there yet.
func (b *bench) image() string {
	b.serial++
	return filepath.Join(b.images, "i"+strconv.Itoa(b.serial))
}

// close removes everything and complains about what was left behind.
func (b *bench) close() error {
	var errs []error
	if b.world != nil {
		errs = append(errs, b.world.Close())
	}
	if b.kdat != nil {
		errs = append(errs, b.kdat.Remove())
	}
	if b.mig != nil {
		errs = append(errs, b.mig.Close())
	}
	errs = append(errs, b.unmount())
	for _, leak := range b.scope.Leaks() {
		errs = append(errs, errors.New("leaked: "+leak))
	}
	return errors.Join(append(errs, b.scope.Destroy())...)
}
