package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sluice/tests/bench/lane"
)

// TestAWholeBoxIsMadeAndTakenAway: nothing of it is left in bpffs, and a second Apply of the same changes nothing.
func TestAWholeBoxIsMadeAndTakenAway(t *testing.T) {
	o, err := lane.NewObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	site, err := lane.NewSite(o)
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	g, err := Open(site.Box)
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			g.Close()
		}
	}()
	facts, err := g.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf("interfaces:\n  - {name: %s, role: uplink, addresses: [%s], xdp: {mode: native}}\n"+
		"  - {name: %s, role: downstream, addresses: [%s]}\npolicy: {ingress: {default: accept}}\n",
		lane.Uplink, lane.UplinkAddress, lane.Downlink, lane.DownlinkAddress)
	want, err := Desire([]byte(file), nil, facts)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := g.Apply(t.Context(), Whole(want)); err != nil {
			t.Fatal(err)
		}
	}
	gen, err := g.Generation()
	if err != nil {
		t.Fatal(err)
	}
	if gen.Programs["live"] == nil {
		t.Errorf("programs %v", gen.Programs)
	}
	gen.Close()
	closed = true
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(bpffs, fmt.Sprintf("%s%d-*", prefix, os.Getpid()))); err != nil || len(left) > 0 {
		t.Errorf("pins %v: %v", left, err)
	}
}

func TestPinsOfAKilledRunAreSweptAndThoseOfALiveOneStay(t *testing.T) {
	dirs := map[bool]string{}
	for live, pid := range map[bool]int{true: os.Getppid(), false: 1 << 30} { // beyond the largest pid there can be
		dir, err := os.MkdirTemp(bpffs, fmt.Sprintf("%s%d-", prefix, pid))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Mkdir(filepath.Join(dir, "node"), 0o700); err != nil {
			t.Fatal(err)
		}
		dirs[live] = dir
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	for live, dir := range dirs {
		if _, err := os.Stat(dir); (err == nil) != live {
			t.Errorf("pins of a process that lives (%v): %v", live, err)
		}
	}
}
