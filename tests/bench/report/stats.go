// Package report turns samples of benchmarks into what people read: medians with intervals, ratios of the same round,
// plots, tables, and the machine that it was measured on.
package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
)

// Estimate is a median with the interval that holds it 95 times of 100.
type Estimate struct{ Median, Low, High float64 }

const resamples = 2000

// Of estimates the median of values by the percentile bootstrap. Equal values give equal estimates.
func Of(values []float64) Estimate {
	if len(values) == 0 {
		return Estimate{math.NaN(), math.NaN(), math.NaN()}
	}
	return bootstrap(median(values), func(rng *rand.Rand) float64 { return median(resample(rng, values)) })
}

// Ratio estimates a/b where values of one index belong together: of one round. What slowed a whole round cancels out.
func Ratio(a, b []float64) Estimate {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		ratios = append(ratios, a[i]/b[i])
	}
	return Of(ratios)
}

// RatioOfMedians estimates a/b where they were not measured side by side, so that the interval is wider.
func RatioOfMedians(a, b []float64) Estimate {
	if len(a) == 0 || len(b) == 0 {
		return Of(nil)
	}
	return bootstrap(median(a)/median(b), func(rng *rand.Rand) float64 {
		return median(resample(rng, a)) / median(resample(rng, b))
	})
}

func bootstrap(of float64, again func(*rand.Rand) float64) Estimate {
	rng := rand.New(rand.NewPCG(1, 1)) // of its own, so that a report can be drawn again to the letter
	draws := make([]float64, resamples)
	for i := range draws {
		draws[i] = again(rng)
	}
	slices.Sort(draws)
	return Estimate{of, draws[resamples*25/1000], draws[resamples*975/1000]}
}

func resample(rng *rand.Rand, values []float64) []float64 {
	out := make([]float64, len(values))
	for i := range out {
		out[i] = values[rng.IntN(len(values))]
	}
	return out
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Valid says whether there was anything to estimate from.
func (e Estimate) Valid() bool { return !math.IsNaN(e.Median) }

// String has three digits that count: "0.412 (0.405 to 0.420)". What has no interval, being one value or the same one each
// time, is shown without.
func (e Estimate) String() string {
	if !e.Valid() {
		return "not measured"
	}
	if e.Low == e.High {
		return Digits(e.Median)
	}
	return fmt.Sprintf("%s (%s to %s)", Digits(e.Median), Digits(e.Low), Digits(e.High))
}

// Digits formats a number with three digits that count, and never fewer than the whole part has.
func Digits(v float64) string {
	if v == 0 || math.IsNaN(v) {
		return fmt.Sprint(v)
	}
	// 9.999 has the digits of 10.0.
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'e', 2, 64), 64)
	after := max(0, 2-int(math.Floor(math.Log10(math.Abs(rounded)))))
	return Thousands(fmt.Sprintf("%.*f", min(after, 4), v))
}

// Thousands puts commas into the whole part of a number.
func Thousands(text string) string {
	end := len(text)
	for i, c := range text {
		if c == '.' {
			end = i
			break
		}
	}
	for at := end - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
