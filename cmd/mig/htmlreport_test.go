// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/shim/depart"
)

func movedReport() *depart.Report {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	after := func(ms int) time.Time { return at.Add(time.Duration(ms) * time.Millisecond) }
	return &depart.Report{
		Token: "00", Namespace: "default", Container: "web<script>", Source: "alpha", Destination: "beta\x1b", Strategy: "auto",
		Moved: true, Removed: true, TotalMS: 1000, DowntimeMS: 12.5, Bytes: 3 << 20, Pages: 700, ImageBytes: 2 << 20, Started: at,
		Rounds: []depart.Round{{Round: 1, Bytes: 2 << 20, MS: 200}},
		Phases: []depart.Span{{Phase: depart.PhasePreflight, Started: at, MS: 100}, {Phase: depart.PhaseMove, Started: after(100), MS: 800}},
		States: []job.Phase{{State: "early", At: after(150)}, {State: "residual", At: after(600)}, {State: "decided", At: after(620)}},
		// The destination's clock was put on ours, give or take: it may seem to end
		// before it began.
		PeerStates: []job.Phase{{State: "receiving", At: after(160)}, {State: "running", At: after(2000)}},
	}
}

// TestReportFile: a file that cannot be written is known before a move, what is in one
// stays until there is something better, and is replaced whole.
func TestReportFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := openReport(filepath.Join(dir, "none", "x.html")); err == nil || !strings.Contains(err.Error(), "--report") {
		t.Errorf("no directory: %v", err)
	}
	file := filepath.Join(dir, "x.html")
	old := strings.Repeat("old", 1<<16)
	if err := os.WriteFile(file, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := openReport(file)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(file); string(b) != old {
		t.Error("what was there is gone before the move")
	}
	if err := r.write(movedReport()); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(file); !strings.Contains(string(b), "<svg") || strings.Contains(string(b), "oldold") {
		t.Errorf("the file has %d bytes: %.80q", len(b), b)
	}
	none, err := openReport("")
	if err := errors.Join(err, none.write(movedReport())); err != nil {
		t.Errorf("no report was wanted: %v", err)
	}
	full, err := openReport("/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	if err := full.write(movedReport()); err == nil || !strings.Contains(err.Error(), "--report") {
		t.Errorf("a full disk: %v", err)
	}
}

// TestReportPage: the page needs nothing else, its bars lie within the picture,
// and names cannot become markup.
func TestReportPage(t *testing.T) {
	var out strings.Builder
	failed := movedReport()
	failed.Moved, failed.Removed, failed.Failure = false, false, &job.Failure{Text: "no <b>memory</b>"}
	if err := writeReport(&out, movedReport(), nil, failed, &depart.Report{Container: "early"}); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	for _, want := range []string{
		"<svg viewBox=\"0 0 1000 142\"", `class="stopped"`, "residual: 20ms", "web&lt;script&gt;", `beta\x1b`, "12.5ms", "700 pages", "no &lt;b&gt;memory", "Not moved",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	for _, bad := range []string{"<script", "ZgotmplZ", "http:", "https:", "NaN", "\x1b"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, l := range lanes(movedReport()) {
		for _, bar := range l.Bars {
			if bar.X < nameWidth || bar.X+bar.Width > pictureWidth+1 || bar.Width <= 0 {
				t.Errorf("%s: %s lies from %.1f, %.1f wide", l.Name, bar.Name, bar.X, bar.Width)
			}
		}
	}
}
