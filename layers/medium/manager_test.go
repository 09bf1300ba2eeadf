// SPDX-License-Identifier: Apache-2.0

package medium_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/directory"
	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/layers/medium/pipe"
)

// What control consumes and what the media provide is one interface.
var (
	_ control.Medium = medium.Medium(nil)
	_ medium.Medium  = control.Medium(nil)
)

func manager(t *testing.T) *medium.Manager {
	t.Helper()
	var m medium.Manager
	if err := errors.Join(m.Insert("dir", directory.Open), m.Insert("pipe", new(pipe.Hub).Open)); err != nil {
		t.Fatal(err)
	}
	return &m
}

// TestManagerSuite: the suite, through addresses.
func TestManagerSuite(t *testing.T) {
	for _, scheme := range []string{"dir", "pipe"} {
		t.Run(scheme, func(t *testing.T) {
			mediumtest.Run(t, func(t *testing.T) *mediumtest.Target {
				m, address := manager(t), "pipe:x"
				if scheme == "dir" {
					address = "dir:" + t.TempDir() + "/image?sync=false&lanes=2"
				}
				return &mediumtest.Target{
					Writer: func() (medium.Medium, error) { return m.Open(t.Context(), address, medium.Write) },
					Reader: func() (medium.Medium, error) { return m.Open(t.Context(), address, medium.Read) },
					Live:   scheme == "pipe", Bound: pipe.DefaultBound,
				}
			})
		})
	}
}

func TestRemoveInUse(t *testing.T) {
	m := manager(t)
	w, err := m.Open(t.Context(), filepath.Join(t.TempDir(), "image"), medium.Write)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Remove("dir"); !errors.Is(err, medium.ErrInUse) {
		t.Errorf("remove while open: %v, want ErrInUse", err)
	}
	if list := m.List(); len(list) != 2 || list[0] != (medium.Info{Scheme: "dir", Users: 1}) || list[1] != (medium.Info{Scheme: "pipe"}) {
		t.Errorf("list: %v", list)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err == nil {
		t.Error("a second Close went unnoticed")
	}
	if err := m.Remove("dir"); err != nil {
		t.Errorf("remove after close: %v", err)
	}
	if err := m.Remove("dir"); !errors.Is(err, medium.ErrUnknown) {
		t.Errorf("remove twice: %v, want ErrUnknown", err)
	}
	if _, err := m.Open(t.Context(), "/x", medium.Read); !errors.Is(err, medium.ErrUnknown) || !strings.Contains(err.Error(), "pipe:") {
		t.Errorf("open a removed medium: %v, want ErrUnknown and the ones there are", err)
	}
	if err := m.Insert("pipe", new(pipe.Hub).Open); err == nil {
		t.Error("a scheme was inserted twice")
	}
}

// TestFailedOpenIsNotInUse: an opener's error gives the medium back.
func TestFailedOpenIsNotInUse(t *testing.T) {
	m := manager(t)
	if _, err := m.Open(t.Context(), t.TempDir()+"/none", medium.Read); err == nil {
		t.Fatal("an image that is not there was opened")
	}
	if err := m.Remove("dir"); err != nil {
		t.Error(err)
	}
}

func TestPipeEnds(t *testing.T) {
	m := manager(t)
	r, err := m.Open(t.Context(), "pipe:a", medium.Read)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Open(t.Context(), "pipe:a", medium.Read); !errors.Is(err, medium.ErrInUse) {
		t.Errorf("the same end twice: %v, want ErrInUse", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	// The name is free again: this is another pipe, not the closed one.
	w, err := m.Open(t.Context(), "pipe:a", medium.Write)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.PushData(t.Context(), mediumtest.Record(1, 10)); err != nil {
		t.Error(err)
	}
	_ = w.Close()
}

func TestParseAddress(t *testing.T) {
	for address, want := range map[string]string{
		"/a/b":                "dir /a/b ",
		"/a//b/../c?x=1%20":   "dir /a/c?x=1%20 ",
		"dir:/a?sync=false":   "dir /a sync=false",
		"dir:///a":            "dir /a ",
		"mig://host:7117/web": "mig /web ",
	} {
		u, err := medium.ParseAddress(address)
		if err != nil || u.Scheme+" "+u.Path+" "+u.RawQuery != want {
			t.Errorf("%s: %v %v, want %q", address, u, err, want)
		}
	}
	for _, bad := range []string{"", "relative/path", "dir:relative", "dir://host/path", "dir:", ":x"} {
		if u, err := medium.ParseAddress(bad); err == nil {
			t.Errorf("%q became %v", bad, u)
		}
	}
}
