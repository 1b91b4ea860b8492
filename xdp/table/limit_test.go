package table

import (
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
)

func TestTablesOfLimitsGrowWithTheIdsAndKeepWhatTheyHold(t *testing.T) {
	g := newGround(t)
	array := func(value uintptr) *ebpf.MapSpec {
		return &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(value), MaxEntries: abi.RuleIDs, Flags: unix.BPF_F_MMAPABLE}
	}
	written := map[uint32]uint64{} // by id
	for _, step := range []struct {
		name          string
		limited       uint32
		buckets, sets uint32
	}{
		{"no rule has a limit", 0, 1, 1},
		{"some have", 1024, 1024, abi.LimitSets},
		{"fewer have", 16, 1024, abi.LimitSets},
		{"ids are higher", 4096, 4096, abi.LimitSets},
		{"none has any more", 0, 4096, abi.LimitSets},
	} {
		spec := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{
			LimitBuckets: array(unsafe.Sizeof(abi.LimitBucket{})), LimitSources: array(unsafe.Sizeof(abi.LimitSet{})),
		}}
		if err := prepareLimits(g.Dir, spec, step.limited); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		open, err := OpenState(g.Dir, spec, LimitBuckets, LimitSources)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if b, s := open[LimitBuckets].MaxEntries(), open[LimitSources].MaxEntries(); b != step.buckets || s != step.sets {
			t.Errorf("%s: %d buckets and %d sets, want %d and %d", step.name, b, s, step.buckets, step.sets)
		}
		for id := range step.buckets {
			var have abi.LimitBucket
			if err := open[LimitBuckets].Lookup(id, &have); err != nil || have.Tat != written[id] {
				t.Errorf("%s: bucket %d holds %d, want %d (%v)", step.name, id, have.Tat, written[id], err)
			}
		}
		last := step.buckets - 1
		written[last] = uint64(last) + 7
		if err := open[LimitBuckets].Put(last, abi.LimitBucket{Tat: written[last]}); err != nil {
			t.Fatal(err)
		}
		if err := CloseAll(open); err != nil {
			t.Fatal(err)
		}
	}
}
