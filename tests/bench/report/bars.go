package report

import (
	"fmt"
	"math"
)

// Bars is a plot of horizontal bars in groups, with a linear axis from zero.
type Bars struct {
	Title, Subtitle, Conditions string

	X      string // what the axis shows, with the unit
	Groups []BarGroup
}

// BarGroup is what belongs together, under a heading.
type BarGroup struct {
	Heading string
	Bars    []Bar
}

// Bar is one rival.
type Bar struct {
	Label, Colour string
	Estimate
	Note string // behind the value: "1.08 x"
	Bold bool
}

// SVG draws it.
func (p Bars) SVG() []byte {
	const left, right, top, row, head = 224.0, width - 170.0, 96.0, 28.0, 44.0
	height, high := top+16, 1.0
	for _, g := range p.Groups {
		height += head + row*float64(len(g.Bars))
		for _, b := range g.Bars {
			high = max(high, b.High)
		}
	}
	bottom := height
	x := scale{0, high * 1.02, left, right, false}
	c := newCanvas(int(bottom)+64, p.Title, p.Subtitle, p.Conditions)
	step := niceStep(high)
	for v := 0.0; v <= high*1.02; v += step {
		c.line(x.at(v), top, x.at(v), bottom, grid, 1)
		c.text(x.at(v), bottom+19, 12, faint, "middle", "400", Thousands(trim(v)))
	}
	c.text((left+right)/2, bottom+44, 13, faint, "middle", "400", p.X)
	at := top
	for _, g := range p.Groups {
		c.text(24, at+head-16, 14, ink, "start", "600", g.Heading)
		at += head
		for _, b := range g.Bars {
			b.draw(c, x, at, row)
			at += row
		}
	}
	return c.done()
}

func (b Bar) draw(c *canvas, x scale, at, row float64) {
	middle, weight := at+row/2-3, "400"
	if b.Bold {
		weight = "700"
	}
	c.text(x.from-10, middle+4, 12.5, ink, "end", weight, b.Label)
	fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="3" fill="%s"/>`+"\n", x.from, at+2, x.at(b.Median)-x.from, row-9, b.Colour)
	c.line(x.at(b.Low), middle, x.at(b.High), middle, ink, 1.2)
	for _, end := range []float64{b.Low, b.High} {
		c.line(x.at(end), middle-4, x.at(end), middle+4, ink, 1.2)
	}
	text := Digits(b.Median)
	if b.Note != "" {
		text += gap + gap + b.Note
	}
	c.text(x.at(b.High)+9, middle+4, 12.5, ink, "start", weight, text)
}

// niceStep divides an axis into four to eight parts of 1, 2 or 5 times a power of ten.
func niceStep(high float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(high/4)))
	for _, s := range []float64{1, 2, 5, 10} {
		if high/(s*power) <= 8 {
			return s * power
		}
	}
	return power * 10
}
