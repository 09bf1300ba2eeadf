// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/target"
)

func TestManager(t *testing.T) {
	var m Manager
	made := func(target.Env) Subsystem { return nil }
	for _, name := range []string{"memory", "file"} {
		if err := m.Insert(Entry{Name: name, Version: 2, New: made}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Insert(Entry{Name: "file", Version: 1, New: made}); err == nil {
		t.Error("inserted twice")
	}
	for _, e := range []Entry{
		{Name: "", Version: 1, New: made}, {Name: "x", New: made}, {Name: "x", Version: 1}, {Name: strings.Repeat("x", 33), Version: 1, New: made},
	} {
		if err := m.Insert(e); err == nil {
			t.Errorf("inserted %+v", e)
		}
	}
	if l := m.List(); len(l) != 2 || l[0].Name != "memory" || l[1].Name != "file" {
		t.Errorf("order: %+v", l)
	}
	if err := m.Accepts("file", 1); err != nil {
		t.Error(err)
	}
	if err := m.Accepts("file", 3); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("newer version: %v", err)
	}
	if err := m.Remove("file"); err != nil {
		t.Error(err)
	}
	if err := m.Accepts("file", 1); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed: %v", err)
	}
	if err := m.Remove("file"); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed twice: %v", err)
	}
}
