package trial

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestIdleTimesAreReadOfEachCPU(t *testing.T) {
	const stat = "cpu  10 0 10 500 20 0 0 0 0 0\ncpu0 5 0 5 200 10 0 0 0 0 0\ncpu1 5 0 5 300 10 0 0 0 0 0\nintr 5 6 7 8 9 10\nctxt 1\n"
	got, err := idleTimes(stat)
	if diff := cmp.Diff([]time.Duration{2100 * time.Millisecond, 3100 * time.Millisecond}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if got, err := idleTimes("cpu0 1 2 3 idle 5 6\n"); err == nil {
		t.Errorf("a word was read as %v", got)
	}
}

func TestLoadsAreNamed(t *testing.T) {
	var got []string
	for _, s := range Shapes([]Wire{{MTU: 1500}, {MTU: 1500, Offload: true}}) {
		got = append(got, s.String())
	}
	want := []string{"TCP_RR, MTU 1500", "TCP_STREAM, MTU 1500", "TCP_STREAM, MTU 1500, segmentation offload"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := (Layout{1, 4}).String(); got != "1 tunnel, 4 flows" {
		t.Error(got)
	}
}
