// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestExitsAfterCheckpoint(t *testing.T) {
	nerdctl := map[string]string{"nerdctl/name": "web"}
	for _, c := range []struct {
		name        string
		opts        *options.CheckpointOptions
		annotations map[string]string
		want        bool
	}{
		{"CRI: no options", nil, map[string]string{"io.kubernetes.cri.sandbox-id": "x"}, false},
		{"nothing at all", nil, nil, false},
		{"ctr, leave running", &options.CheckpointOptions{}, nil, false},
		{"ctr --exit", &options.CheckpointOptions{Exit: true}, nil, true},
		{"nerdctl", nil, nerdctl, true},
		{"nerdctl, label", nil, map[string]string{"nerdctl/name": "web", leaveRunning: "true"}, false},
		{"options win over nerdctl", &options.CheckpointOptions{}, nerdctl, false},
	} {
		if got := exitsAfterCheckpoint(c.opts, c.annotations); got != c.want {
			t.Errorf("%s: exits %v, want %v", c.name, got, c.want)
		}
	}
}

func TestOwnCgroup(t *testing.T) {
	for _, c := range []struct{ path, want string }{
		{"/ns/old", "/ns/new"},
		{"ns/old", "ns/old"}, // relative: not what containerd makes
		{"/ns/new", "/ns/new"},
		{"system.slice:nerdctl:old", "system.slice:nerdctl:new"},
		{"/mine/special", "/mine/special"},
		{"/kubepods/pod1/old", "/kubepods/pod1/old"},
		{"", ""},
	} {
		if got := ownCgroup(c.path, "ns", "new"); got != c.want {
			t.Errorf("ownCgroup(%q) = %q, want %q", c.path, got, c.want)
		}
	}
}

func TestIsURL(t *testing.T) {
	for image, want := range map[string]bool{
		"mig://host:7117": true, "s3://bucket/x": true, "/var/tmp/x": false,
		"relative": false, "/a://b": false, "": false,
	} {
		if got := isURL(image); got != want {
			t.Errorf("isURL(%q) = %v, want %v", image, got, want)
		}
	}
}

func TestDaemonScratch(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv("XDG_RUNTIME_DIR", "")
	dir := func(parts ...string) string {
		path := filepath.Join(append([]string{tmp}, parts...)...)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := filepath.Join(tmp, "ctrd-checkpoint7")
	if err := os.Symlink(dir("precious"), link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		dir("ctrd-checkpoint123"):              true,
		dir("ctrd-checkpoint"):                 false,
		dir("ctrd-checkpoint1x"):               false,
		dir("sub", "ctrd-checkpoint123"):       false,
		dir("mine"):                            false,
		filepath.Join(tmp, "ctrd-checkpoint9"): false, // does not exist
		link:                                   false,
		tmp + "/sub/../ctrd-checkpoint123":     false,
	} {
		if got := isDaemonScratch(path); got != want {
			t.Errorf("isDaemonScratch(%q) = %v, want %v", path, got, want)
		}
	}
	removeScratch(dir("mine"))
	removeScratch(dir("ctrd-checkpoint123"))
	if _, err := os.Stat(filepath.Join(tmp, "mine")); err != nil {
		t.Error("somebody's directory was removed")
	}
	if _, err := os.Stat(filepath.Join(tmp, "ctrd-checkpoint123")); err == nil {
		t.Error("the daemon's directory was not removed")
	}
}

func TestDecodeOptions(t *testing.T) {
	plain, err := marshalAny(&options.Options{SystemdCgroup: true, Root: "/r", IoUid: 7})
	if err != nil {
		t.Fatal(err)
	}
	hosted := &anypb.Any{TypeUrl: "type.googleapis.com/" + plain.TypeUrl, Value: plain.Value}
	body := "# CRI\nSystemdCgroup = true\nRoot = \"/r\"\nIoUid = 7\nBinaryName = \"\"\n"
	generic, err := marshalAny(&runtimeoptions.Options{ConfigBody: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]*anypb.Any{"runc": plain, "with a host": hosted, "toml": generic} {
		got, err := decodeOptions(a)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !got.SystemdCgroup || got.Root != "/r" || got.IoUid != 7 {
			t.Errorf("%s: %v", name, got)
		}
	}
	// {no_pivot_root, file_locks, empty_namespaces "x", shim_cgroup "/c",
	// io_uid 7, io_gid 300}
	legacy := []byte("\x08\x01\x28\x01\x32\x01x\x4a\x02/c\x50\x07\x58\xac\x02")
	got, err := decodeOptions(&anypb.Any{TypeUrl: typeLegacyOptions, Value: legacy})
	if err != nil || !got.NoPivotRoot || got.ShimCgroup != "/c" || got.IoUid != 7 || got.IoGid != 300 || got.NoNewKeyring {
		t.Errorf("legacy: %v, %v", got, err)
	}
	if _, err := decodeOptions(&anypb.Any{TypeUrl: typeLegacyOptions, Value: legacy[:9]}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("truncated legacy options: %v", err)
	}
	for name, a := range map[string]*anypb.Any{"nil": nil, "empty": {}, "type only": {TypeUrl: typeOptions}} {
		if got, err := decodeOptions(a); err != nil || got == nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	_, err = decodeOptions(&anypb.Any{TypeUrl: "example.Other", Value: []byte{1}})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "example.Other") {
		t.Errorf("unknown type: %v", err)
	}
	_, err = decodeOptions(&anypb.Any{TypeUrl: typeOptions, Value: []byte{0xff}})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("broken value: %v", err)
	}
	var opts options.Options
	if err := tomlOptions("SystemdCgruop = true", &opts); err == nil || !strings.Contains(err.Error(), "SystemdCgruop") {
		t.Errorf("misspelt key: %v", err)
	}
}

func TestDecodeCheckpoint(t *testing.T) {
	if opts, err := decodeCheckpoint(nil); opts != nil || err != nil {
		t.Errorf("no options: %v, %v; want nil", opts, err)
	}
	// {exit, path "/1" in field 8, path "/2" in field 9}
	value := []byte("\x08\x01\x42\x02/1\x4a\x02/2")
	opts, err := decodeCheckpoint(&anypb.Any{TypeUrl: typeCheckpoint, Value: value})
	if err != nil || !opts.Exit || opts.ImagePath != "/1" || opts.WorkPath != "/2" {
		t.Errorf("%v, %v", opts, err)
	}
	opts, err = decodeCheckpoint(&anypb.Any{TypeUrl: typeLegacyCheckpoint, Value: value})
	if err != nil || !opts.Exit || opts.WorkPath != "/1" || opts.ImagePath != "/2" {
		t.Errorf("legacy: %v, %v", opts, err)
	}
	if _, err := decodeCheckpoint(&anypb.Any{TypeUrl: "example.Other"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown type: %v", err)
	}
}

// Every operation has an answer in every state: a step, a refusal or, in a
// transition, the wait for its end.
func TestStateMachineIsComplete(t *testing.T) {
	for op := opStart; op <= opUpdate; op++ {
		for s := stateCreated; s <= duringDelete; s++ {
			_, step := transitions[op][s]
			_, refused := refusals[op][s]
			free := (op == opExec || op == opUpdate) && !refused
			if step && refused {
				t.Errorf("operation %d in state %q is both possible and refused", op, s)
			}
			if !step && !refused && !free && !s.moving() {
				t.Errorf("operation %d in state %q has no answer: it would wait for ever", op, s)
			}
			if s.String() == "" {
				t.Errorf("state %d has no name", s)
			}
		}
	}
}
