package table

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
)

// former2 makes and pins a table of version 2.
func (g ground) former2(name string, valueSize int) *ebpf.Map {
	g.t.Helper()
	m, err := g.StateMap(&ebpf.MapSpec{Type: ebpf.Hash, Flags: unix.BPF_F_NO_PREALLOC, KeySize: sizeFlowKey, ValueSize: uint32(valueSize), MaxEntries: 64},
		name, 2)
	g.good(err)
	g.t.Cleanup(func() { m.Close() })
	return m
}

func TestFlowsOfVersion2KeepAllThatWasKnown(t *testing.T) {
	g := newGround(t)
	const sizeOfFlow2 = 104
	flows, ways := g.former2("flows", sizeOfFlow2), g.former2("translations", len(bytesOf(abi.Translation{})))
	key := abi.FlowKey{Port: [2][2]byte{{1, 2}, {0, 80}}, Protocol: 6}
	was := flow2{LastNs: monotonic(), SinceNs: 2, Epoch: 3, NatAddr: abi.Addr{15: 4}, At: 5, In: 6, Owner: 7, Rule: [2]uint32{8, 9}, Seq: 10,
		NatPort: [2]byte{11, 12}, State: uint8(abi.FlowEstablished), Flags: abi.FlowInside | abi.FlowNat, Opener: 1, Judged: 13,
		Side: [2]abi.FlowSide{{Packets: 14, Bytes: 15}, {Packets: 16, Bytes: 17}}}
	way := abi.Translation{Inner: key, SinceNs: 2, Addr: was.NatAddr, Port: was.NatPort}
	g.good(flows.Put(key, bytesOf(was)))
	g.good(ways.Put(key, way))
	all := g.open(64, 64)
	g.settle(g.takeOver())
	g.only()
	var now abi.Flow
	g.good(all[Flows].Lookup(key, &now))
	want := abi.Flow{LastNs: was.LastNs, SinceNs: 2, Epoch: 3, NatAddr: was.NatAddr, At: 5, In: 6, Owner: 7, Rule: was.Rule, Seq: 10, NatPort: was.NatPort,
		State: was.State, Flags: was.Flags, Opener: 1, Judged: 13, Sent: was.Side[0], Answered: was.Side[1]}
	if diff := cmp.Diff(want, now, cmpopts.IgnoreUnexported(abi.Flow{})); diff != "" {
		t.Errorf("the flow (-want +got):\n%s", diff)
	}
	var back abi.Translation
	if err := all[Translations].Lookup(key, &back); err != nil || back != way {
		t.Errorf("its translation is %+v (%v), want %+v", back, err, way)
	}
}

func TestAResizeKeepsNoClaimOnHowAFlowGoesOn(t *testing.T) {
	g := newGround(t)
	all := g.open(64, 64)
	key := abi.FlowKey{Protocol: 6}
	g.good(all[Flows].Put(key, abi.Flow{LastNs: monotonic(), Back: abi.FlowWay{Epoch: abi.FlowWayBusy, Leads: 3}}))
	g.run("tcx-egress", all[Flows])
	all = g.open(128, 64)
	h := g.takeOver()
	g.run("tcx-egress", all[Flows])
	g.settle(h)
	var flow abi.Flow
	g.good(all[Flows].Lookup(key, &flow))
	if flow.Back != (abi.FlowWay{}) {
		t.Errorf("no program would write it again: %+v", flow.Back)
	}
}
