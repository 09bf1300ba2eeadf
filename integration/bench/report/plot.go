// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/io-mig/mig/integration/bench/stats"
)

// Plot is lines over the same labels: a picture of some of a section's rows. Each
// point is a median, with a whisker from the best to the worst measurement.
type Plot struct {
	// Name is part of the picture's file name.
	Name   string   `json:"name"`
	Title  string   `json:"title"`
	X      string   `json:"x,omitempty"` // what the labels are
	Unit   string   `json:"unit"`
	Labels []string `json:"labels"`
	// Joined: the labels have an order, and lines join the points.
	Joined bool   `json:"joined,omitempty"`
	Lines  []Line `json:"lines"`
}

// Line is one of them; a label without measurements is left out.
type Line struct {
	Name   string         `json:"name"`
	Points []stats.Series `json:"points"` // one for each label
}

// Plot adds a picture, unless nothing was measured.
func (s *Section) Plot(p Plot) {
	if low, high := p.bounds(); low <= high {
		s.Plots = append(s.Plots, p)
	}
}

// Of a picture, in pixels.
const (
	plotWidth, plotHeight   = 760, 360
	plotLeft, plotRight     = 70, 230 // room for the scale and the names of lines
	plotTop, plotBottom     = 40, 50
	plotInnerW, plotInnerH  = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
	plotLegendX             = plotWidth - plotRight + 20
	plotLegendStep, plotDot = 18, 3
)

// colours of lines, told apart also by those who see few.
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"}

// bounds are the least and the largest measurement above zero; low > high: there is
// none.
func (p *Plot) bounds() (low, high float64) {
	low = math.Inf(1)
	for _, l := range p.Lines {
		for _, v := range l.Points {
			for _, x := range v {
				if x > 0 {
					low, high = min(low, x), max(high, x)
				}
			}
		}
	}
	return low, high
}

// scale maps measurements to pixels: by their logarithms where they differ much.
type scale struct {
	low, high float64
	log       bool
}

func (p *Plot) scale() scale {
	low, high := p.bounds()
	if high > 20*low {
		return scale{math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high))), true}
	}
	step := math.Pow(10, math.Floor(math.Log10(high)))
	return scale{0, step * math.Ceil(high/step), false}
}

func (s scale) y(v float64) float64 {
	part := (v - s.low) / (s.high - s.low)
	if s.log {
		part = math.Log(max(v, s.low)/s.low) / math.Log(s.high/s.low)
	}
	return plotTop + plotInnerH*(1-part)
}

// ticks are where the scale has lines.
func (s scale) ticks() (at []float64) {
	if s.log {
		for v := s.low; v <= s.high*1.001; v *= 10 {
			at = append(at, v)
		}
		return at
	}
	const parts = 5
	for i := range parts + 1 {
		at = append(at, s.high*float64(i)/parts)
	}
	return at
}

// x is where a label stands.
func (p *Plot) x(label int) float64 {
	return plotLeft + plotInnerW*(float64(label)+0.5)/float64(len(p.Labels))
}

// SVG is the picture.
func (p *Plot) SVG() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, plotHeight)
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
	}
	line := func(x1, y1, x2, y2 float64, colour string) {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
	}
	text(plotLeft, plotTop-18, "start", fmt.Sprintf("%s (%s; median, best to worst)", p.Title, p.Unit))
	s := p.scale()
	for _, v := range s.ticks() {
		line(plotLeft, s.y(v), plotLeft+plotInnerW, s.y(v), "#dddddd")
		text(plotLeft-6, s.y(v)+4, "end", fmt.Sprintf("%.3g", v))
	}
	for i, label := range p.Labels {
		text(p.x(i), plotTop+plotInnerH+18, "middle", label)
	}
	text(plotLeft+plotInnerW/2, plotTop+plotInnerH+38, "middle", p.X)
	for i, l := range p.Lines {
		colour := colours[i%len(colours)]
		y := float64(plotTop + i*plotLegendStep)
		line(plotLegendX, y, plotLegendX+20, y, colour)
		text(plotLegendX+26, y+4, "start", l.Name)
		// Lines stand beside each other, so that whiskers do not hide each other.
		aside := 5 * (float64(i) - float64(len(p.Lines)-1)/2)
		var path []string
		for label, v := range l.Points {
			if len(v) == 0 {
				continue
			}
			x, y := p.x(label)+aside, s.y(v.Median())
			line(x, s.y(v.Min()), x, s.y(v.Max()), colour)
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="%d" fill="%s"/>`+"\n", x, y, plotDot, colour)
			path = append(path, fmt.Sprintf("%.1f,%.1f", x, y))
		}
		if p.Joined && len(path) > 1 {
			fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s"/>`+"\n", strings.Join(path, " "), colour)
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// picture is a plot's file name.
func (r *Report) picture(p *Plot) string { return r.Name + "-" + p.Name + ".svg" }

// savePlots writes the pictures into dir.
func (r *Report) savePlots(dir string) error {
	for _, s := range r.Sections {
		for i := range s.Plots {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, r.picture(&s.Plots[i])), []byte(s.Plots[i].SVG()), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
