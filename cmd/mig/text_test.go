// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/spec/record"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü, 日本":                  "plain ü, 日本",
		"\x1b[2Jgone\a":                `\x1b[2Jgone\x07`,
		"two\nlines\tand a tab":        "two\nlines\tand a tab",
		"not \xff utf-8, \u202e turns": `not \xff utf-8, \x202e turns`,
	} {
		if got := plain(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	if got := oneLine("a\nb"); got != `a\nb` {
		t.Errorf("one line: %q", got)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10 << 10: "10 KiB", 999 << 10: "999 KiB", 1000 << 10: "1.0 MiB",
		3 << 30: "3.0 GiB", 1<<64 - 1: "16 EiB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

// TestReport is the whole page of a refused container.
func TestReport(t *testing.T) {
	r := checkReport{Container: "web", Pid: 40, Findings: []record.Finding{
		{Pid: 41, FD: 7, Subsystem: "file", What: "anon_inode:[io_uring]", Why: "its requests\x1b are in flight", Remedy: "run it without io_uring"},
		{FD: -1, Subsystem: "task", What: "2 processes"},
	}, Warnings: []record.Finding{{Pid: 41, TID: 43, FD: -1, Subsystem: "signal", What: "x"}}}
	var b bytes.Buffer
	if err := r.write(&b); err != nil {
		t.Fatal(err)
	}
	const want = `web (pid 40) cannot be checkpointed, 2 things are in the way:

  pid 41, fd 7 (file): anon_inode:[io_uring]
    why     its requests\x1b are in flight
    remedy  run it without io_uring

  container (task): 2 processes

worth knowing:

  pid 41, thread 43 (signal): x
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// TestBar follows a running request on a narrow terminal.
func TestBar(t *testing.T) {
	st := &request.Status{ID: "1", Kind: job.Checkpoint, Phase: request.Active, Progress: job.Progress{Bytes: 50, Total: 200}}
	if got, want := bar(st, 27), "[#####---------------]  25%\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	st.Progress.Bytes = 1000 // more than expected is not more than all
	if got := bar(st, 27); !strings.HasSuffix(got, "] 100%\n") {
		t.Errorf("got %q", got)
	}
	st.Progress.Total = 0
	if got := bar(st, 27); got != "" {
		t.Errorf("a bar of unknown length: %q", got)
	}
}

// TestLinesFitTheTerminal: a live table counts rows, so no line may wrap.
func TestLinesFitTheTerminal(t *testing.T) {
	v := table{{ID: "1", Container: strings.Repeat("x", 200), Phase: request.Active}}
	for _, line := range strings.Split(v.text(40, time.Now()), "\n") {
		if n := len([]rune(line)); n > 40 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}
