package progrun_test

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// TestTablesOfLimitsOfOneSizeAreLeftToWhoMadeThem: an older version takes no other size, so it must find none under its names.
func TestTablesOfLimitsOfOneSizeAreLeftToWhoMadeThem(t *testing.T) {
	s := newSite(t, limited(slow(2, true)))
	dir := pin.At(s.dir)
	for name, spec := range map[string]*ebpf.MapSpec{
		"limit-buckets": {Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: abi.RuleIDs, Flags: unix.BPF_F_MMAPABLE},
		"limit-sources": {Type: ebpf.Array, KeySize: 4, ValueSize: 64, MaxEntries: abi.LimitSets, Flags: unix.BPF_F_MMAPABLE},
	} {
		if _, err := os.Stat(dir.StateMapPath(name, 1)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s-v1: %v, want none", name, err)
		}
		m, err := dir.StateMap(spec, name, 1)
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
	}
	s.load(t, limited(slow(3, true)))
	wantPassed(t, "after the upgrade", s.passes(t, 5, dns("192.0.2.1")), 3)
	for _, name := range []string{"limit-buckets", "limit-sources"} {
		if _, err := os.Stat(dir.StateMapPath(name, 1)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s-v1 is still pinned: %v", name, err)
		}
	}
}
