package daemon

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/bgp/fib"
)

// refusalMetrics collects those of a table.
type refusalMetrics fib.Counters

func (refusalMetrics) Describe(chan<- *prometheus.Desc) {}

func (m refusalMetrics) Collect(out chan<- prometheus.Metric) { refusals(out, fib.Counters(m)) }

func TestMetricsSayWhyLearnedRoutesAreNotInTheKernel(t *testing.T) {
	got := gathered(t, refusalMetrics{Unresolved: 1, Conflicts: 2, Circular: 3, Failures: 4, Waiting: 5})
	want := []string{
		"bgp_fib_refused_total{circular} 3", "bgp_fib_refused_total{conflict} 2", "bgp_fib_refused_total{failure} 4",
		"bgp_fib_refused_total{unresolved} 1", "bgp_fib_waiting{} 5",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	d := idle(t)
	address := freePort(t)
	if err := bring(t, d.metrics, at(address)); err != nil {
		t.Fatal(err)
	}
	text, err := scrape(t, address)
	if line := `sluice_bgp_fib_refused_total{reason="circular"} 0`; err != nil || !strings.Contains(text, line+"\n") {
		t.Errorf("%q is not among the metrics of a daemon (%v):\n%s", line, err, text)
	}
}
