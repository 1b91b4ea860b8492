package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Width of every plot, and the colours that are not a rival's.
const (
	width = 1000
	ink   = "#1d2530"
	faint = "#5d6875"
	grid  = "#e4e8ed"
)

// canvas writes SVG elements. Text is escaped here and nowhere else.
type canvas struct{ strings.Builder }

func newCanvas(height int, title, subtitle, conditions string) *canvas {
	c := &canvas{}
	fmt.Fprintf(c, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" `+
		`font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif">`+"\n", width, height, width, height)
	fmt.Fprintf(c, "<title>%s</title>\n", html.EscapeString(title))
	fmt.Fprintf(c, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	c.text(24, 34, 19, ink, "start", "600", title)
	c.text(24, 57, 13, faint, "start", "400", subtitle)
	c.text(24, 76, 13, faint, "start", "400", conditions)
	return c
}

func (c *canvas) text(x, y, size float64, colour, anchor, weight, s string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" font-size="%.0f" fill="%s" text-anchor="%s" font-weight="%s">%s</text>`+"\n",
		x, y, size, colour, anchor, weight, html.EscapeString(s))
}

func (c *canvas) upright(x, y, size float64, s string) {
	fmt.Fprintf(c, `<text transform="translate(%.1f %.1f) rotate(-90)" font-size="%.0f" fill="%s" text-anchor="middle">%s</text>`+"\n",
		x, y, size, faint, html.EscapeString(s))
}

func (c *canvas) line(x1, y1, x2, y2 float64, colour string, stroke float64) {
	fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%.1f"/>`+"\n", x1, y1, x2, y2, colour, stroke)
}

func (c *canvas) done() []byte {
	c.WriteString("</svg>\n")
	return []byte(c.String())
}

// scale maps values to places on a plot, by their logarithm or as they are.
type scale struct {
	low, high float64 // values
	from, to  float64 // places
	log       bool
}

func (s scale) at(v float64) float64 {
	low, high := s.low, s.high
	if s.log {
		v, low, high = math.Log10(v), math.Log10(low), math.Log10(high)
	}
	return s.from + (v-low)/(high-low)*(s.to-s.from)
}

// logTicks are 1, 2 and 5 times powers of ten within a scale, or the powers alone where that would be a crowd.
func logTicks(low, high float64) []float64 {
	steps := []float64{1, 2, 5}
	if math.Log10(high/low) > 4 {
		steps = steps[:1]
	}
	var out []float64
	for power := math.Floor(math.Log10(low)); power <= math.Log10(high); power++ {
		for _, s := range steps {
			if v := s * math.Pow(10, power); v >= low*0.999 && v <= high*1.001 {
				out = append(out, v)
			}
		}
	}
	return out
}

// Short writes a number for an axis: 1k, 1M.
func Short(v float64) string {
	switch {
	case v >= 1e6:
		return trim(v/1e6) + "M"
	case v >= 1e3:
		return trim(v/1e3) + "k"
	}
	return trim(v)
}

func trim(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", v), "0"), ".")
}
