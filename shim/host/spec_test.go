// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/cio"

	"github.com/io-mig/mig/layers/request/peer"
)

// TestAnnotationsComeAndGo: a spec has marks on the way and none afterwards, and
// fields that this mig does not know stay.
func TestAnnotationsComeAndGo(t *testing.T) {
	for _, raw := range []string{
		`{"ociVersion":"1.2.0","annotations":{"a":"b"},"later":{"x":[1,2]}}`, `{"ociVersion":"1.2.0","later":1}`, `{"annotations":null}`,
	} {
		b, err := editAnnotations([]byte(raw), func(a map[string]string) {
			a[AnnotationIncoming], a[AnnotationTLS], a[AnnotationFrom], a["io.mig/tcp"], a[annotationAdded] = "/x.sock", "/tls", "alpha", "keep", "io.mig/tcp"
		})
		if err != nil || !strings.Contains(string(b), `"io.mig/incoming":"/x.sock"`) {
			t.Fatalf("%s, %v", b, err)
		}
		if b, err = withoutIncoming(b); err != nil {
			t.Fatal(err)
		}
		var got, want map[string]any
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(raw), &want); err != nil {
			t.Fatal(err)
		}
		if want["annotations"] == nil {
			delete(want, "annotations")
		}
		if g, w := marshal(t, got), marshal(t, want); g != w {
			t.Errorf("got %s, want %s", g, w)
		}
	}
	if _, err := editAnnotations([]byte(`{"annotations":[]}`), func(map[string]string) {}); err == nil {
		t.Error("annotations that are a list were taken")
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestSpecNamesWhatIsMissing: everything at once, and nothing that is there.
func TestSpecNamesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	spec := strings.NewReplacer("DIR", dir, "MISSING", missing).Replace(`{
	"root":{"path":"rootfs"},
	"mounts":[{"destination":"/proc","type":"proc","source":"proc"},
		{"destination":"/there","type":"bind","source":"DIR"},
		{"destination":"/gone","type":"none","source":"MISSING","options":["rbind"]},
		{"destination":"/copied/","type":"bind","source":"MISSING"}],
	"hooks":{"createRuntime":[{"path":"MISSING"}]},
	"linux":{"namespaces":[{"type":"network","path":"MISSING"},{"type":"ipc","path":"/proc/1/ns/ipc"},{"type":"mount"}]}}`)
	found := checkSpec([]byte(spec), []string{"/copied"})
	var what []string
	for _, m := range found {
		what = append(what, m.What)
	}
	if got, want := strings.Join(what, ", "), "mount on /gone, hook, network namespace, ipc namespace"; got != want {
		t.Errorf("found %s, want %s", got, want)
	}
}

// TestVolumesAreMade: only the directories that were not there are the move's to
// remove.
func TestVolumesAreMade(t *testing.T) {
	dir := t.TempDir()
	spec := strings.ReplaceAll(`{"mounts":[{"destination":"/a","type":"bind","source":"DIR/new/deep"},
		{"destination":"/b","type":"bind","source":"DIR"},{"destination":"/c","type":"bind","source":"DIR/other"}]}`, "DIR", dir)
	o := &peer.Offer{Container: peer.Container{Spec: json.RawMessage(spec), Policies: map[string]string{"copy-volume": "/a,/b/"}}}
	made, err := MakeVolumes(o)
	if err != nil || len(made) != 1 || made[0] != filepath.Join(dir, "new") {
		t.Fatalf("%v, %v", made, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "new/deep")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "other")); err == nil {
		t.Error("a volume that is not copied was made")
	}
}

func TestStreamsArrive(t *testing.T) {
	program := filepath.Join(t.TempDir(), "logger")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		streams         peer.Streams
		want            cio.Config
		found, warnings int
	}{
		"none":           {},
		"FIFOs":          {streams: peer.Streams{Stdin: "/run/f/in", Stdout: "/run/f/out", Stderr: "/run/f/err"}, warnings: 1},
		"FIFOs, a log":   {streams: peer.Streams{Stdout: "/run/f/out", Stderr: "/run/f/err", LogURI: "file:///x"}, want: cio.Config{Stdout: "file:///x", Stderr: "file:///x"}},
		"a terminal":     {streams: peer.Streams{Stdout: "/run/f/out", Terminal: true, LogURI: "file:///x"}, want: cio.Config{Stdout: "file:///x", Terminal: true}},
		"a logger":       {streams: peer.Streams{Stdout: "binary://" + program + "?a=b"}, want: cio.Config{Stdout: "binary://" + program + "?a=b"}},
		"no logger":      {streams: peer.Streams{Stdout: "binary:///nobody"}, want: cio.Config{Stdout: "binary:///nobody"}, found: 1},
		"a relative log": {streams: peer.Streams{Stdout: "file:x"}, want: cio.Config{Stdout: "file:x"}, found: 1},
		"another world":  {streams: peer.Streams{Stdout: "http://x"}, want: cio.Config{Stdout: "http://x"}, found: 1},
	} {
		got, found, warnings := arrive(c.streams)
		if got != c.want || len(found) != c.found || len(warnings) != c.warnings {
			t.Errorf("%s: %+v, %v, %v", name, got, found, warnings)
		}
	}
}

// TestNeeds: nothing is counted twice, nor what is there.
func TestNeeds(t *testing.T) {
	o := &peer.Offer{Memory: 7, Container: peer.Container{Snapshot: peer.Snapshot{Size: 10, Layers: 100}}}
	o.Container.Image.Blobs = []peer.Content{{Descriptor: peer.Descriptor{Digest: "sha256:a", Size: 1000}}, {Descriptor: peer.Descriptor{Digest: "sha256:b", Size: 5000}}}
	wanted := []peer.Wanted{{Digest: "sha256:a", Offset: 400}}
	if got := Needs(o, wanted, false); got != (Resources{Memory: 7, Disk: 10 + 100 + 600}) {
		t.Errorf("%+v", got)
	}
	if got := Needs(o, nil, true); got != (Resources{Memory: 7, Disk: 10}) {
		t.Errorf("%+v", got)
	}
}
