// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// openFiles are the files of one file system that processes have open or map.
type openFiles struct {
	dev  uint64
	inos map[uint64]bool
	// dropped is told of the others.
	dropped func(path string)
}

// has is a filetree.ExportOptions.Keep.
func (o *openFiles) has(path string, st *unix.Statx_t) bool {
	if !o.inos[st.Ino] && o.dropped != nil {
		o.dropped(path)
	}
	return o.inos[st.Ino]
}

// look lists them anew.
func (o *openFiles) look(source *target.Source) error {
	o.inos = map[uint64]bool{}
	pids, err := source.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		list, err := source.Look(pid)
		if err != nil {
			return err
		}
		for i := range list {
			o.add(&list[i].Stat)
		}
		if err := o.mapped(procfs.Host().Process(pid)); err != nil {
			return err
		}
	}
	return nil
}

func (o *openFiles) add(st *unix.Stat_t) {
	if st.Dev == o.dev && st.Mode&unix.S_IFMT == unix.S_IFREG {
		o.inos[st.Ino] = true
	}
}

// mapped adds what a process maps.
func (o *openFiles) mapped(t procfs.Task) error {
	maps, err := t.Maps()
	if procfs.IsGone(err) {
		return nil
	}
	for i := range maps {
		var st unix.Stat_t
		link := t.Path(fmt.Sprintf("map_files/%x-%x", maps[i].Start, maps[i].End))
		if maps[i].Kind == procfs.MapFile && unix.Stat(link, &st) == nil {
			o.add(&st)
		}
	}
	return err
}
