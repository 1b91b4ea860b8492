package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Lines is a plot of curves over a size, both axes logarithmic. Each curve has its name at its end, in its colour.
type Lines struct {
	Title, Subtitle, Conditions string

	X, Y   string // what the axes show, with the unit
	Curves []Curve
}

// Curve is one rival.
type Curve struct {
	Label, Colour string
	Points        []Point // by size
	Bold          bool    // the one that the plot is about
	Dashed        bool    // a floor, not a rival
}

// Point is what a rival costs at a size.
type Point struct {
	Size float64
	Estimate
}

// gap is two spaces that no reader of SVG draws as one.
const gap = "\u00a0\u00a0"

const labelRoom = 296.0

// least is the smallest value that a logarithmic axis shows.
const least = 1e-3

// SVG draws it.
func (p Lines) SVG() []byte {
	const height, left, top, bottom = 590, 84.0, 104.0, 530.0
	low, high, first, last := p.bounds()
	x := scale{first, last, left + 14, width - labelRoom, true}
	y := scale{low, high, bottom, top, true}
	c := newCanvas(height, p.Title, p.Subtitle, p.Conditions)
	for _, v := range logTicks(low, high) {
		c.line(left, y.at(v), width-labelRoom+8, y.at(v), grid, 1)
		c.text(left-9, y.at(v)+4, 12, faint, "end", "400", Short(v))
	}
	for _, v := range p.sizes() {
		c.line(x.at(v), bottom, x.at(v), bottom+5, faint, 1)
		c.text(x.at(v), bottom+21, 12, faint, "middle", "400", Short(v))
	}
	c.line(left, bottom, width-labelRoom+8, bottom, faint, 1)
	c.text((left+width-labelRoom)/2, bottom+46, 13, faint, "middle", "400", p.X)
	c.upright(26, (top+bottom)/2, 13, p.Y)
	for _, curve := range p.Curves {
		curve.draw(c, x, y)
	}
	p.labels(c, x, y, top, bottom)
	return c.done()
}

func (p Lines) bounds() (low, high, first, last float64) {
	low, first = math.Inf(1), math.Inf(1)
	for _, c := range p.Curves {
		for _, at := range c.Points {
			low, high = min(low, at.Low), max(high, at.High)
			first, last = min(first, at.Size), max(last, at.Size)
		}
	}
	if first >= last { // one size, or nothing
		first, last = max(1, first/2), max(2, last*2)
	}
	if math.IsInf(low, 1) {
		low, high, first = 1, 10, 1
	}
	return max(low, least) * 0.8, max(high, least) * 1.25, first, last
}

func (p Lines) sizes() []float64 {
	var out []float64
	for _, c := range p.Curves {
		for _, at := range c.Points {
			out = append(out, at.Size)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (curve Curve) draw(c *canvas, x, y scale) {
	stroke, style := 2.0, ""
	if curve.Bold {
		stroke = 3.4
	}
	if curve.Dashed {
		style = ` stroke-dasharray="5 5"`
	}
	var way strings.Builder
	for i, at := range curve.Points {
		fmt.Fprintf(&way, "%c%.1f %.1f", "ML"[min(i, 1)], x.at(at.Size), y.at(max(at.Median, y.low)))
	}
	fmt.Fprintf(c, `<path d="%s" fill="none" stroke="%s" stroke-width="%.1f" stroke-linejoin="round"%s/>`+"\n", way.String(), curve.Colour, stroke, style)
	for _, at := range curve.Points {
		c.line(x.at(at.Size), y.at(max(at.Low, y.low)), x.at(at.Size), y.at(max(at.High, y.low)), curve.Colour, stroke)
		fmt.Fprintf(c, `<circle cx="%.1f" cy="%.1f" r="%.1f" fill="#ffffff" stroke="%s" stroke-width="2"/>`+"\n",
			x.at(at.Size), y.at(max(at.Median, y.low)), stroke+1.2, curve.Colour)
	}
}

// labels names every curve at the right, as near to its end as the others let it.
func (p Lines) labels(c *canvas, x, y scale, top, bottom float64) {
	const step = 17.0
	type label struct {
		Curve
		end Point
		y   float64
	}
	var list []label
	for _, curve := range p.Curves {
		if n := len(curve.Points); n > 0 {
			end := curve.Points[n-1]
			list = append(list, label{curve, end, y.at(max(end.Median, y.low))})
		}
	}
	slices.SortStableFunc(list, func(a, b label) int { return int(math.Copysign(1, a.y-b.y)) })
	for i := range list { // down from the top, then up from the bottom: no two within a step
		list[i].y = max(list[i].y, top)
		if i > 0 {
			list[i].y = max(list[i].y, list[i-1].y+step)
		}
	}
	for i := len(list) - 1; i >= 0; i-- {
		limit := bottom
		if i < len(list)-1 {
			limit = list[i+1].y - step
		}
		list[i].y = min(list[i].y, limit)
	}
	for _, l := range list {
		weight := "400"
		if l.Bold {
			weight = "700"
		}
		from, to := x.at(l.end.Size)+7, width-labelRoom+18
		fmt.Fprintf(c, `<path d="M%.1f %.1fL%.1f %.1fL%.1f %.1f" fill="none" stroke="%s" stroke-width="0.9" stroke-opacity="0.55" stroke-dasharray="2 3"/>`+"\n",
			from, y.at(max(l.end.Median, y.low)), to, l.y, to+8, l.y, l.Colour)
		c.text(to+12, l.y+4, 12.5, l.Colour, "start", weight, l.Label+gap+Digits(l.end.Median))
	}
}
