// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Bytes as containerd writes and reads them; the field numbers are those of
// api/runtime/bootstrap/v1/bootstrap.proto. They are written out so that a
// change of the generated code cannot change both sides at once.
var (
	// {instance_id "web", namespace "ns", log_level DEBUG (-4),
	// ttrpc address "/t", grpc address "/g", extension Any{"x.Y", "v"},
	// socket_dir "/s"}
	bootParams = "0a03776562" + "12026e73" + "18fcffffffffffffffff01" + "2a022f74" + "32022f67" +
		"420a0a080a03782e59120176" + "4a022f73"
	// Any{type_url "containerd.runc.v1.Options", value {shim_cgroup "/c"}}
	plainOptions = "0a1a" + hex.EncodeToString([]byte("containerd.runc.v1.Options")) + "12041a022f63"
	// {version 3, address "unix:///s/1", protocol "ttrpc"}
	bootResult = "0803" + "120b" + hex.EncodeToString([]byte("unix:///s/1")) + "1a05" + hex.EncodeToString([]byte("ttrpc"))
)

func unhex(t *testing.T, s string) string {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var webFlags = Flags{ID: "web", Namespace: "ns", Address: "/flag.sock"}

func TestReadParams(t *testing.T) {
	p, err := ReadParams(strings.NewReader(unhex(t, bootParams)), webFlags)
	if err != nil {
		t.Fatal(err)
	}
	if p.Form != FormBootstrap || !p.Debug || p.TTRPCAddress != "/t" || p.GRPCAddress != "/g" ||
		p.SocketDir != "/s" || p.Options.GetTypeUrl() != "x.Y" {
		t.Errorf("bootstrap form: %+v", p)
	}

	p, err = ReadParams(strings.NewReader(unhex(t, plainOptions)), webFlags)
	if err != nil {
		t.Fatal(err)
	}
	if p.Form != FormPlain || p.GRPCAddress != "/flag.sock" || p.SocketDir != DefaultSocketDir ||
		p.Options.GetTypeUrl() != "containerd.runc.v1.Options" {
		t.Errorf("plain form: %+v", p)
	}

	p, err = ReadParams(strings.NewReader(""), webFlags)
	if err != nil || p.Form != FormPlain || p.Options != nil {
		t.Errorf("empty stdin: %+v, %v", p, err)
	}

	// Parameters for another task are no parameters.
	other := webFlags
	other.ID = "db"
	if p, err := ReadParams(strings.NewReader(unhex(t, bootParams)), other); err == nil && p.Form == FormBootstrap {
		t.Errorf("parameters of another task were taken: %+v", p)
	}

	if _, err := ReadParams(strings.NewReader("\xff\xff"), webFlags); err == nil {
		t.Error("garbage was taken for parameters")
	}
}

func TestEncode(t *testing.T) {
	for form, want := range map[Form]string{FormPlain: "unix:///s/1", FormBootstrap: unhex(t, bootResult)} {
		got, err := form.Encode("unix:///s/1")
		if err != nil || string(got) != want {
			t.Errorf("form %d: %x, %v; want %x", form, got, err, want)
		}
	}
}

func TestParseFlags(t *testing.T) {
	f, err := ParseFlags(strings.Fields("-namespace ns -address /a -publish-binary /p -id web -debug -bundle /b delete"))
	if err != nil {
		t.Fatal(err)
	}
	want := Flags{Namespace: "ns", ID: "web", Address: "/a", Bundle: "/b", Debug: true, Action: ActionDelete}
	if f != want {
		t.Errorf("%+v, want %+v", f, want)
	}
	for _, args := range []string{"-id web start", "-namespace ns start", "-namespace ns -id web restart", "-nosuch"} {
		if _, err := ParseFlags(strings.Fields(args)); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	for _, args := range []string{"-info", "-v", "-version"} {
		if _, err := ParseFlags([]string{args}); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// The hash is containerd's (pkg/shim CreateSocketAddress): sha256 of the three
// parts joined as a path.
func TestSocketPath(t *testing.T) {
	got := SocketPath("/run/containerd/s", "/run/containerd/containerd.sock", "default", "web")
	const want = "/run/containerd/s/" +
		"2cde4450fa38c74f53603e01d2afd903b315a27a596f12a151414cd59897d883"
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s", "socket")
	l, joined, err := Listen(path)
	if err != nil || joined {
		t.Fatal(joined, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if _, joined, err = Listen(path); err != nil || !joined {
		t.Errorf("second: joined %v, %v; want to join", joined, err)
	}
	l.Close() // the name stays: a dead shim's
	if _, err := os.Stat(path); err != nil {
		t.Fatal("the socket's name went with the listener")
	}
	l, joined, err = Listen(path)
	if err != nil || joined {
		t.Errorf("after the death: joined %v, %v; want a new socket", joined, err)
	} else {
		l.Close()
	}
	if _, _, err := Listen("/" + strings.Repeat("x", 200)); err == nil {
		t.Error("a path beyond the limit was taken")
	}
}

func TestGroup(t *testing.T) {
	for _, c := range []struct{ config, want string }{
		{`{}`, "web"},
		{`{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}`, "pod"},
		{`{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}`, "g"},
		{`{"annotations":{"io.kubernetes.cri.sandbox-id":""}}`, "web"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(c.config), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Group(dir, "web"); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.config, got, err, c.want)
		}
	}
	if _, err := Group(t.TempDir(), "web"); err == nil {
		t.Error("no error without a configuration")
	}
}

func TestServerEnv(t *testing.T) {
	got := strings.Join(serverEnv([]string{"A=1", "GOMAXPROCS=2", "TTRPC_ADDRESS=/old"}, "/new"), " ")
	if want := "A=1 TTRPC_ADDRESS=/new GOMAXPROCS=4"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got = strings.Join(serverEnv([]string{"TTRPC_ADDRESS=/old"}, ""), " ")
	if want := "TTRPC_ADDRESS=/old GOMAXPROCS=4"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestAdjustOOMScore(t *testing.T) {
	for parent, want := range map[string]string{"-999\n": "-998", "0\n": "1", "1000\n": "1000"} {
		proc := t.TempDir()
		for pid, content := range map[string]string{"1": parent, "2": ""} {
			dir := filepath.Join(proc, pid)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "oom_score_adj"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := adjustOOMScore(proc, 1, 2); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(filepath.Join(proc, "2", "oom_score_adj")); string(got) != want {
			t.Errorf("containerd %q: shim %q, want %q", parent, got, want)
		}
	}
}

func TestJoinCgroup(t *testing.T) {
	root := t.TempDir()
	for _, controller := range []string{"cpu", "memory"} {
		dir := filepath.Join(root, controller, "shims")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := joinCgroup(root, "/shims", 42); err != nil {
		t.Fatal(err)
	}
	for _, controller := range []string{"cpu", "memory"} {
		got, _ := os.ReadFile(filepath.Join(root, controller, "shims", "cgroup.procs"))
		if string(got) != "42" {
			t.Errorf("%s: %q, want 42", controller, got)
		}
	}
	if err := joinCgroup(root, "/nosuch", 42); err == nil {
		t.Error("no error for a cgroup that does not exist")
	}
}
