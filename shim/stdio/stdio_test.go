// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		uri  string
		kind kind
		path string
		args []string
	}{
		{"", kindNone, "", nil},
		{"/run/f i%fo", kindPath, "/run/f i%fo", nil},
		{"fifo:///run/x", kindPath, "/run/x", nil},
		{"file:///var/log/a%20b", kindFile, "/var/log/a b", nil},
		{"binary:///bin/log?b=2&a=1&b=3&flag", kindBinary, "/bin/log", []string{"b", "2", "a", "1", "flag", ""}},
		{"binary-v2:///bin/log", kindBinaryV2, "/bin/log", nil},
	} {
		got, err := parseTarget(c.uri)
		if err != nil || got.kind != c.kind || got.path != c.path || !slices.Equal(got.args, c.args) {
			t.Errorf("%s: %+v, %v", c.uri, got, err)
		}
	}
	for _, uri := range []string{"http://x", "file://", "binary:///x?%zz", "binary://"} {
		if got, err := parseTarget(uri); err == nil {
			t.Errorf("%s was taken: %+v", uri, got)
		}
	}
}

func mkfifo(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// open connects and plays the process: the returned files are its ends.
func open(t *testing.T, c Config) (s *Streams, in, out, errOut *os.File) {
	t.Helper()
	c.UID, c.GID = os.Getuid(), os.Getgid()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := Open(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	dup := func(f *os.File) *os.File {
		if f == nil {
			return nil
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), f.Name())
	}
	a, b, d := s.Child()
	in, out, errOut = dup(a), dup(b), dup(d)
	s.Started()
	return s, in, out, errOut
}

func drain(t *testing.T, s *Streams) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		t.Error(err)
	}
}

func TestNothing(t *testing.T) {
	s, in, out, errOut := open(t, Config{})
	if in != nil || out != nil || errOut != nil {
		t.Errorf("%v %v %v, want /dev/null thrice", in, out, errOut)
	}
	drain(t, s)
}

func TestFIFOs(t *testing.T) {
	dir := t.TempDir()
	uris := URIs{Stdin: mkfifo(t, dir, "in"), Stdout: mkfifo(t, dir, "out"), Stderr: mkfifo(t, dir, "err")}
	s, in, out, errOut := open(t, Config{URIs: uris})
	if flags, _ := unix.FcntlInt(out.Fd(), unix.F_GETFL, 0); flags&unix.O_NONBLOCK != 0 {
		t.Error("the process's stdout is non-blocking")
	}
	if err := s.StartInput(); err != nil {
		t.Fatal(err)
	}
	// Two clients in a row: the input does not end with the first.
	for _, text := range []string{"first\n", "second\n"} {
		client, err := os.OpenFile(uris.Stdin, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(client, text)
		client.Close()
		buf := make([]byte, len(text))
		if _, err := io.ReadFull(in, buf); err != nil || string(buf) != text {
			t.Fatalf("stdin %q, %v; want %q", buf, err, text)
		}
	}
	if err := s.CloseStdin(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) != 0 {
		t.Errorf("after CloseIO: %q, %v; want the end", rest, err)
	}

	for name, end := range map[string]*os.File{uris.Stdout: out, uris.Stderr: errOut} {
		client, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(end, "from ", name)
		end.Close()
		client.SetReadDeadline(time.Now().Add(5 * time.Second))
		// The shim's end of the FIFO closes after the last byte.
		if got, err := io.ReadAll(client); err != nil || string(got) != "from "+name {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		client.Close()
	}
	drain(t, s)
}

// ctr may say CloseIO before the start.
func TestCloseStdinBeforeStart(t *testing.T) {
	fifo := mkfifo(t, t.TempDir(), "in")
	s, in, _, _ := open(t, Config{URIs: URIs{Stdin: fifo}})
	client, err := os.OpenFile(fifo, os.O_RDWR, 0) // does not wait for a reader
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(client, "all\n")
	s.CloseStdin()
	if err := s.StartInput(); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if got, err := io.ReadAll(in); err != nil || string(got) != "all\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "log")
	for _, text := range []string{"one", "two"} {
		s, _, out, errOut := open(t, Config{URIs: URIs{Stdout: "file://" + path, Stderr: "file://" + path}})
		io.WriteString(out, text)
		out.Close()
		io.WriteString(errOut, "!")
		errOut.Close()
		drain(t, s)
		s.Close()
	}
	got, err := os.ReadFile(path)
	if err != nil || len(got) != len("one!two!") || strings.Count(string(got), "!") != 2 {
		t.Errorf("%q, %v; want both runs, appended", got, err)
	}
}

// A sink that fails must not block the process.
func TestFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	s, _, out, _ := open(t, Config{URIs: URIs{Stdout: "/dev/full"}})
	out.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if _, err := out.Write(make([]byte, 1<<20)); err != nil {
		t.Errorf("the process was kept from writing: %v", err)
	}
	out.Close()
	drain(t, s)
}

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "logger")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBinary(t *testing.T) {
	sink := filepath.Join(t.TempDir(), "sink")
	path := script(t, `echo "$CONTAINER_ID $CONTAINER_NAMESPACE $1=$2" >"$2"; exec 5>&-; cat <&3 >>"$2"; cat <&4 >>"$2"`)
	s, _, out, errOut := open(t, Config{ID: "web", Namespace: "ns", URIs: URIs{Stdout: "binary://" + path + "?sink=" + sink}})
	io.WriteString(out, "out\n")
	io.WriteString(errOut, "err\n")
	out.Close()
	errOut.Close()
	if err := s.Close(); err != nil { // waits for the program
		t.Error(err)
	}
	want := "web ns sink=" + sink + "\nout\nerr\n"
	if got, _ := os.ReadFile(sink); string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBinaryReadiness(t *testing.T) {
	for _, c := range []struct {
		name, scheme, text string
		ok                 bool
	}{
		{"v1, closed", "binary", "exec 5>&-; cat <&3", true},
		{"v2, byte", "binary-v2", "printf x >&5; cat <&3", true},
		{"v2, closed without a byte", "binary-v2", "exec 5>&-; cat <&3", false},
		{"v2, crashed", "binary-v2", "exit 1", false},
		{"never ready", "binary", "cat <&3", false},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		s, err := Open(ctx, Config{UID: os.Getuid(), GID: os.Getgid(), URIs: URIs{Stdout: c.scheme + "://" + script(t, c.text)}})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			s.Close()
		}
		cancel()
	}
	if _, err := Open(context.Background(), Config{URIs: URIs{Stdout: "binary:///nosuch"}}); err == nil {
		t.Error("a missing program was taken")
	}
}
