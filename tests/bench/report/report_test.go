package report

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

func TestAnEstimateIsTheMedianWithinItsInterval(t *testing.T) {
	for _, c := range []struct {
		values []float64
		median float64
	}{
		{[]float64{7}, 7}, {[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}, {[]float64{1, 1, 1, 1, 100}, 1},
	} {
		got := Of(c.values)
		if got.Median != c.median || got.Low > got.Median || got.High < got.Median {
			t.Errorf("%v: %+v, want a median of %v", c.values, got, c.median)
		}
		if again := Of(c.values); again != got {
			t.Errorf("%v: %+v, and then %+v", c.values, got, again)
		}
	}
	if e := Of([]float64{5, 5, 5}); e.Low != 5 || e.High != 5 {
		t.Errorf("equal values have the interval %+v", e)
	}
	if Of(nil).Valid() || Of(nil).String() != "not measured" {
		t.Errorf("nothing gave %s", Of(nil))
	}
}

// TestTheIntervalHoldsTheMedianAsOftenAsItSays draws from a distribution whose median is known. Nine values give coarse
// intervals: between 90 and 99 of 100 is what the method can do.
func TestTheIntervalHoldsTheMedianAsOftenAsItSays(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const trials = 120
	held := 0
	for range trials {
		values := make([]float64, 9)
		for i := range values {
			values[i] = rng.ExpFloat64()
		}
		if e := Of(values); e.Low <= math.Ln2 && math.Ln2 <= e.High {
			held++
		}
	}
	if held < trials*90/100 || held == trials {
		t.Errorf("%d of %d intervals held the median", held, trials)
	}
}

func TestAPairedRatioForgetsWhatDisturbedARound(t *testing.T) {
	a, b := []float64{2, 4, 20, 6, 200}, []float64{1, 2, 10, 3, 100}
	if got := Ratio(a, b); got != (Estimate{2, 2, 2}) {
		t.Errorf("paired: %+v", got)
	}
	if got := RatioOfMedians(a, b); got.Median != 2 || got.High < 3 {
		t.Errorf("not paired: %+v", got)
	}
	if Ratio(a, nil).Valid() || RatioOfMedians(nil, b).Valid() {
		t.Error("a ratio of nothing is valid")
	}
}

func TestNumbersHaveThreeDigitsThatCount(t *testing.T) {
	for v, want := range map[float64]string{
		0.41234: "0.412", 0.0098765: "0.0099", 1.5: "1.50", 12.345: "12.3", 123.45: "123", 1234.5: "1,234", 1234567: "1,234,567", 0: "0", 9.999: "10.0", 0.99996: "1.00", 999.7: "1,000",
	} {
		if got := Digits(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{10: "10", 1000: "1k", 2500: "2.5k", 1e6: "1M", 0.5: "0.5"} {
		if got := Short(v); got != want {
			t.Errorf("%v is %q on an axis, want %q", v, got, want)
		}
	}
}

// texts returns what an SVG says, and fails where it is not well-formed; ys are the places of the texts that begin so.
func texts(t *testing.T, svg []byte) (all []string, ys map[string]float64) {
	t.Helper()
	ys = map[string]float64{}
	var y float64
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all, ys
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			for _, a := range token.Attr {
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("<%s %s=%q>", token.Name.Local, a.Name.Local, a.Value)
				}
				if token.Name.Local == "text" && a.Name.Local == "y" {
					y, _ = strconv.ParseFloat(a.Value, 64)
				}
			}
		case xml.CharData:
			if s := strings.TrimSpace(string(token)); s != "" {
				all, ys[s] = append(all, s), y
			}
		}
	}
}

func TestALinePlotCanBeReadOnItsOwn(t *testing.T) {
	at := func(size, v float64) Point { return Point{size, Estimate{v, v * 0.9, v * 1.1}} }
	plot := Lines{Title: "Cost & size", Subtitle: "<here>", Conditions: "7 rounds", X: "rules", Y: "ns", Curves: []Curve{
		{Label: "one", Colour: "#111111", Points: []Point{at(10, 100), at(100_000, 400)}, Bold: true},
		{Label: "two", Colour: "#222222", Points: []Point{at(10, 101), at(100_000, 401)}, Dashed: true},
		{Label: "three", Colour: "#333333", Points: []Point{at(10, 102)}},
		{Label: "none", Colour: "#444444"},
	}}
	all, ys := texts(t, plot.SVG())
	for _, want := range []string{"Cost & size", "<here>", "7 rounds", "rules", "ns", "10", "100k", "200", "one" + gap + "400", "two" + gap + "401", "three" + gap + "102"} {
		if _, ok := ys[want]; !ok {
			t.Errorf("the plot does not say %q: %q", want, all)
		}
	}
	if apart := math.Abs(ys["one"+gap+"400"] - ys["two"+gap+"401"]); apart < 15 {
		t.Errorf("two names lie %v apart", apart)
	}
	texts(t, Lines{Title: "nothing"}.SVG())
}

func TestABarPlotCanBeReadOnItsOwn(t *testing.T) {
	plot := Bars{Title: "Cost", Subtitle: "here", X: "ns", Groups: []BarGroup{
		{"One flow", []Bar{{Label: "a", Colour: "#111111", Estimate: Estimate{812, 800, 830}, Note: "1.08 ×"}}},
		{"Many", []Bar{{Label: "b", Colour: "#222222", Estimate: Estimate{1600, 1500, 1700}, Bold: true}}},
	}}
	all, ys := texts(t, plot.SVG())
	for _, want := range []string{"Cost", "here", "ns", "0", "1,500", "One flow", "Many", "a", "b", "812" + gap + gap + "1.08 ×", "1,600"} {
		if _, ok := ys[want]; !ok {
			t.Errorf("the plot does not say %q: %q", want, all)
		}
	}
	texts(t, Bars{Title: "nothing"}.SVG())
}

func TestTheMachineIsDescribedWithoutItsName(t *testing.T) {
	m := Describe()
	if m.Kernel == "" || m.CPU == "" || m.Cores < 1 || m.MemoryGB < 1 || m.JIT == "" || m.Load == "" {
		t.Errorf("%+v", m)
	}
	text := Machine{Kernel: "6.12 x86_64", CPU: "some CPU", Cores: 2, MemoryGB: 8, Virtual: true, JIT: "on", Go: "go1", Load: "0 0 0",
		Mitigations: []string{"meltdown: Mitigation: PTI"}}.Markdown()
	for _, want := range []string{"6.12 x86_64", "BPF JIT on", "some CPU, 2 cores, 8 GB, a virtual machine", "\n- meltdown: Mitigation: PTI\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestATableIsMarkdown(t *testing.T) {
	want := "| what | a | b |\n| --- | ---: | ---: |\n| x | 1 | 2 |\n"
	if got := Table([]string{"what", "a", "b"}, [][]string{{"x", "1", "2"}}); got != want {
		t.Errorf("got\n%s", got)
	}
}

type drawn struct{ Size string }

func (*drawn) Draw(string) error { return nil }

func TestARunIsOfTheSizeThatWasAskedFor(t *testing.T) {
	var got drawn
	c := Command{Name: "x", Results: &got, Measure: func(_ context.Context, r Run) (bool, error) {
		got.Size = Sized(r, "the long one", "the short one")
		return false, nil
	}}
	for size, want := range map[string]string{"full": "the long one", "quick": "the short one"} {
		if err := c.Run(t.Context(), []string{"-size", size}); err != nil || got.Size != want {
			t.Errorf("%s: %q, %v", size, got.Size, err)
		}
	}
	if err := c.Run(t.Context(), []string{"-size", "huge"}); err == nil || !strings.Contains(err.Error(), "full or quick") {
		t.Errorf("another size: %v", err)
	}
}
