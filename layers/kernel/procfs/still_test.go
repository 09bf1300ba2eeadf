// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"testing"
	"testing/fstest"
)

// TestStill: a stopped task's files are read once, a running one's each time, and
// nobody's copy is another's.
func TestStill(t *testing.T) {
	files := fstest.MapFS{
		"7/personality": {Data: []byte("00000001\n")},
		"7/maps":        {Data: []byte("1000-2000 rw-p 00000000 00:00 0 \n")},
		"7/limits":      {Data: []byte("bad")},
	}
	task := New(files).Process(7)
	still := task.Still()
	first, err := still.Maps()
	if err != nil || len(first) != 1 {
		t.Fatalf("%v, %v", first, err)
	}
	first[0].Start = 5 // the caller's
	files["7/maps"] = &fstest.MapFile{Data: []byte("3000-4000 rw-p 00000000 00:00 0 \n")}
	files["7/personality"] = &fstest.MapFile{Data: []byte("00000002\n")}
	for name, want := range map[string]uint64{"still": 0x1000, "running": 0x3000, "fresh": 0x3000} {
		from := map[string]Task{"still": still, "running": task, "fresh": still.Fresh()}[name]
		if list, err := from.Maps(); err != nil || len(list) != 1 || list[0].Start != want {
			t.Errorf("%s: %v, %v, want a mapping at %#x", name, list, err, want)
		}
	}
	if p, err := still.Personality(); err != nil || p != 2 {
		t.Errorf("personality %d, %v: not among what is kept", p, err)
	}
	if _, err := still.Limits(); err == nil {
		t.Error("a file that cannot be read was read")
	}
	delete(files, "7/limits")
	if _, err := still.Limits(); err == nil {
		t.Error("an error was kept as a result")
	}
}
