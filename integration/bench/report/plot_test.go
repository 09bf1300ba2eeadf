// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/io-mig/mig/integration/bench/stats"
)

// wellFormed reads all of an XML document.
func wellFormed(t *testing.T, text string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
}

// TestPlot: a picture has a dot for each point that was measured, within its frame,
// on both kinds of scale; it is saved, and the document names it.
func TestPlot(t *testing.T) {
	for name, far := range map[string]float64{"linear": 3, "logarithmic": 3000} {
		p := Plot{Name: name, Title: "a < b", Unit: Milliseconds, Labels: []string{"1", "2"}, Joined: true, Lines: []Line{
			{Name: "one", Points: []stats.Series{{1, 2}, {far}}}, {Name: "half", Points: []stats.Series{nil, {2}}},
		}}
		svg := p.SVG()
		wellFormed(t, svg)
		if n := strings.Count(svg, "<circle"); n != 3 {
			t.Errorf("%s: %d dots of 3", name, n)
		}
		s := p.scale()
		if s.log != (name == "logarithmic") || s.y(far) < plotTop || s.y(1) > plotTop+plotInnerH || s.y(1) <= s.y(far) {
			t.Errorf("%s: scale %+v puts 1 at %v and %v at %v", name, s, s.y(1), far, s.y(far))
		}
		r := &Report{Name: "live"}
		r.Add("empty", "").Plot(Plot{Lines: []Line{{Points: []stats.Series{nil}}}})
		r.Add("full", "").Plot(p)
		dir := t.TempDir()
		doc := filepath.Join(dir, "page.md")
		begin, end := marks("live")
		if err := os.WriteFile(doc, []byte(begin+"\n"+end+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Save(filepath.Join(dir, "out")), r.Into(doc)); err != nil {
			t.Fatal(err)
		}
		for file, picture := range map[string]string{doc: "page/live-" + name + ".svg", filepath.Join(dir, "out/live.md"): "live-" + name + ".svg"} {
			text, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(text), "]("+picture+")") {
				t.Errorf("%s: %v\n%s", file, err, text)
			}
			if got, err := os.ReadFile(filepath.Join(filepath.Dir(file), picture)); err != nil || string(got) != svg {
				t.Errorf("%s: %v", picture, err)
			}
		}
	}
}
