package progrun_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// far is who the flows of these tests go to.
var far = netip.MustParseAddr(outside)

// tcResizes does what tc's load does to the flow tables before XDP is switched, where its programs write what is pinned then.
func (s *site) tcResizes(t *testing.T, flows uint32) {
	t.Helper()
	dir := pin.At(s.dir)
	spec := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{}}
	names := map[string]string{table.Flows: "flows", table.Translations: "translations", table.FreshOut: "fresh-out", table.FreshIn: "fresh-in"}
	for name, at := range names {
		now := s.openMap(t, at, 3)
		spec.Maps[name] = &ebpf.MapSpec{Type: now.Type(), KeySize: now.KeySize(), ValueSize: now.ValueSize(), Flags: now.Flags(), MaxEntries: now.MaxEntries()}
	}
	spec.Maps[table.Flows].MaxEntries, spec.Maps[table.Translations].MaxEntries = flows, flows
	open, err := table.OpenState(dir, spec, table.Flows, table.Translations, table.FreshOut, table.FreshIn)
	if err != nil {
		t.Fatal(err)
	}
	defer table.CloseAll(open)
	h, err := table.TakeOver(dir)
	if err = errors.Join(err, h.Settle(dir)); err != nil {
		t.Fatal(err)
	}
}

// TestXDPKnowsTheFlowsOfBeforeUntilItIsSwitched: tc is loaded first, and takes the flow tables to another size.
func TestXDPKnowsTheFlowsOfBeforeUntilItIsSwitched(t *testing.T) {
	g := strict()
	s := newSite(t, g)
	putFlow(t, s.openMap(t, "flows", 3), key(dst4, far, 1, 2, 6), time.Hour, abi.FlowEstablished)
	putFlow(t, s.openMap(t, "fresh-out", 3), key(dst4, far, 3, 53, 17), time.Second, abi.FlowNew)
	session, answer := from4(outside, frame4(6, tcp(2, 1))), from4(outside, frame4(17, udp(53, 3)))
	passes := func(when string) {
		t.Helper()
		for name, frame := range map[string][]byte{"the session": session, "the answer": answer} {
			if verdict := run(t, s.live, s.uplink, frame); verdict != xdpPass {
				t.Errorf("%s %s: verdict %d", name, when, verdict)
			}
		}
	}
	passes("before")
	s.tcResizes(t, 2*g.FlowSlots)
	passes("between tc and XDP")
	if have, err := s.Observe(t.Context()); err != nil || have.Digest != "" {
		t.Errorf("XDP on the former tables counts as current: %q, %v", have.Digest, err)
	}
	g.FlowSlots *= 2
	s.load(t, g)
	passes("after")
	putFlow(t, s.openMap(t, "flows", 3), key(dst4, far, 5, 2, 6), time.Second, abi.FlowEstablished)
	s.check(t, "a session that tc tracks now", from4(outside, frame4(6, tcp(2, 5))), abi.ReasonEstablished)
}

// TestFlowsOfTheFormerLayoutReachAnXDPOfToday: where XDP is all that is loaded, it takes over itself.
func TestFlowsOfTheFormerLayoutReachAnXDPOfToday(t *testing.T) {
	s := newSite(t, strict())
	dir := pin.At(s.dir)
	former, err := dir.StateMap(&ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 40, ValueSize: 16, MaxEntries: 64}, "flows-out", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer former.Close()
	// From dst4, port 1 to far, port 2; TCP; last seen now; replied.
	src, dst := dst4.As16(), far.As16()
	k := append(append(append([]byte{}, src[:]...), dst[:]...), 0, 1, 0, 2, 6, 0, 0, 0)
	var now abi.Flow
	putFlow(t, s.openMap(t, "fresh-out", 3), key(dst4, far, 9, 9, 17), 0, abi.FlowNew) // for its time
	if err := s.openMap(t, "fresh-out", 3).Lookup(key(dst4, far, 9, 9, 17).FlowKey, &now); err != nil {
		t.Fatal(err)
	}
	if err := former.Put(k, struct {
		Last       uint64
		Flags, Pad uint32
	}{now.LastNs, 1, 0}); err != nil {
		t.Fatal(err)
	}
	frame := from4(outside, frame4(6, tcp(2, 1)))
	s.check(t, "before", frame, abi.ReasonDefaultDrop)
	g := strict()
	g.FlowSlots *= 2
	s.load(t, g)
	s.check(t, "after", frame, abi.ReasonEstablished)
	if _, err := ebpf.LoadPinnedMap(dir.StateMapPath("flows-out", 1), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the former table is still pinned: %v", err)
	}
}
