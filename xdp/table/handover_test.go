package table

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

func TestFlowsOfVersion1AreFoundWithStateDirectionAndTimes(t *testing.T) {
	const replied, closing = formerReplied, formerClosing
	g := newGround(t)
	out, in := g.former1(1024)
	for i, c := range []struct {
		name  string
		was   v1
		at    string
		state abi.FlowState
	}{
		{"a TCP session of the inside", v1{protocol: 6, idle: 7000, flags: replied}, Flows, abi.FlowEstablished},
		{"one of the outside", v1{in: true, protocol: 6, idle: 100, flags: replied}, Flows, abi.FlowEstablished},
		{"a SYN without an answer", v1{protocol: 6, idle: 5}, FreshOut, abi.FlowNew},
		{"one from the outside", v1{in: true, protocol: 6, idle: 5}, FreshIn, abi.FlowNew},
		{"a session that ends", v1{protocol: 6, idle: 20, flags: replied | closing}, Flows, abi.FlowClosing},
		{"a SYN that was refused", v1{protocol: 6, idle: 2, flags: closing}, FreshOut, abi.FlowClosed},
		{"a question of the inside that was answered", v1{protocol: 17, idle: 170, flags: replied}, Flows, abi.FlowEstablished},
		{"one of the outside: its source may be forged", v1{in: true, protocol: 17, idle: 10, flags: replied}, FreshIn, abi.FlowReplied},
		{"an echo", v1{protocol: 1, idle: 1, flags: replied}, Flows, abi.FlowEstablished},
		{"a session that has expired", v1{protocol: 6, idle: 7441, flags: replied}, "", 0},
		{"a closing one that has", v1{protocol: 6, idle: 31, flags: replied | closing}, "", 0},
		{"a question that has", v1{protocol: 17, idle: 61}, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := ground{g.Dir, t}
			c.was.port = uint16(1000 + i)
			last := c.was.put(g, out, in)
			all := g.open(1024, 256)
			g.takeOver()
			at, flow := g.find(all, c.was.key())
			if at != c.at || at != "" && (abi.FlowState(flow.State) != c.state || flow.LastNs != last || flow.SinceNs != last) {
				t.Errorf("in %q: %+v; want in %q, state %d, last %d", at, flow, c.at, c.state, last)
			}
			if inside := flow.Flags&abi.FlowInside != 0; at != "" && inside == c.was.in {
				t.Errorf("opened by the inside: %v", inside)
			}
			if flow.Epoch != 0 || flow.Judged != 0 || flow.At != 0 {
				t.Errorf("policy is not asked about its next packet: %+v", flow)
			}
		})
	}
	g.settle(Handover{})
	g.only()
}

// TestNoCrashLosesAFlow cuts an upgrade short behind each of its steps; another process then begins anew, as a daemon does.
func TestNoCrashLosesAFlow(t *testing.T) {
	old := v1{protocol: 6, port: 1, idle: 100, flags: formerReplied}
	during := v1{protocol: 6, port: 2, idle: 0, flags: formerReplied}
	ending := v1{protocol: 6, port: 3, idle: 1, flags: formerReplied}
	for crash := range 7 {
		t.Run(fmt.Sprintf("after step %d", crash), func(t *testing.T) {
			g := newGround(t)
			out, in := g.former1(1024)
			old.put(g, out, in)
			ending.put(g, out, in)
			g.run("tcx-egress", out, in)
			g.run("xdp", out, in)
			var all map[string]*ebpf.Map
			var h Handover
			live := func() []*ebpf.Map { return slices.Collect(maps.Values(all)) }
			steps := []func(){
				func() { all = g.open(1024, 256) },
				func() { h = g.takeOver() },
				func() { // what the old programs still write
					during.put(g, out, in)
					changed := ending
					changed.flags |= formerClosing
					changed.put(g, out, in)
				},
				func() { g.run("tcx-egress", live()...) },
				func() { g.settle(h) },
				func() { g.run("xdp", live()...) },
				func() { g.settle(Handover{}) },
			}
			for _, step := range steps[:crash] {
				step()
			}
			wrote := crash > 2
			all, h = g.open(1024, 256), Handover{} // the next process
			if crash <= 3 {                        // the live generation is not of today's tables
				h = g.takeOver()
				if !wrote {
					steps[2]()
				}
				g.run("tcx-egress", live()...)
				g.settle(h)
			}
			g.settle(Handover{}) // the sweep's, at the start
			g.only()
			for _, c := range []struct {
				was   v1
				state abi.FlowState
			}{{old, abi.FlowEstablished}, {during, abi.FlowEstablished}, {ending, abi.FlowClosing}} {
				if at, flow := g.find(all, c.was.key()); at != Flows || abi.FlowState(flow.State) != c.state {
					t.Errorf("port %d: in %q, %+v; want state %d", c.was.port, at, flow, c.state)
				}
				var f formerFlow
				if err := out.Lookup(bytesOf(c.was.key()), &f); err != nil { // XDP may still be on it
					t.Errorf("port %d: the former table lost it: %v", c.was.port, err)
				}
			}
		})
	}
}

func TestFormerTablesStayWhileALiveProgramWritesThem(t *testing.T) {
	g := newGround(t)
	out, in := g.former1(16)
	g.run("tcx-ingress", out)
	g.run("tcx-egress", in)
	all := g.open(1024, 256)
	h := g.takeOver()
	g.run("tcx-ingress", all[Flows])
	g.settle(h)
	if pins := g.pins(); !slices.Contains(pins, "flows-in-v1") || !slices.Contains(pins, "flows-out-v1") {
		t.Errorf("pins %q: a slot still holds a program that writes", pins)
	}
	late := v1{in: true, protocol: 6, port: 9, flags: formerReplied}
	late.put(g, out, in)
	g.run("tcx-egress", all[Flows])
	g.settle(h)
	g.only()
	if at, _ := g.find(all, late.key()); at != Flows {
		t.Errorf("what it wrote last is in %q", at)
	}
}

func TestFlowTablesKeepTheirEntriesWhenTheirSizeChanges(t *testing.T) {
	for _, c := range []struct {
		name             string
		flows, fresh     uint32
		inFlows, inFresh int
	}{
		{"larger", 4096, 512, 300, 100},
		{"smaller", 200, 512, 200, 200}, // what finds no room competes with what is not proven
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGround(t)
			all := g.open(1024, 256)
			want := map[abi.FlowKey]abi.Flow{}
			for i := range 400 {
				key := abi.FlowKey{Port: [2][2]byte{{byte(i >> 8), byte(i)}, {0, 80}}, Protocol: 6}
				flow := abi.Flow{LastNs: monotonic(), SinceNs: uint64(i + 1), State: uint8(abi.FlowEstablished), Flags: abi.FlowInside,
					Epoch: 7, Rule: [2]uint32{3, 4}, Sent: abi.FlowSide{Packets: 5, Bytes: 6}, Answered: abi.FlowSide{Packets: 7, Bytes: 8}}
				at := Flows
				if i >= 300 {
					at, flow.State = FreshOut, uint8(abi.FlowNew)
				}
				g.good(all[at].Put(key, flow))
				want[key] = flow
			}
			g.run("tcx-egress", all[Flows])
			fresh := g.open(c.flows, c.fresh)
			h := g.takeOver()
			g.run("tcx-egress", fresh[Flows])
			g.settle(h)
			g.only()
			got := map[abi.FlowKey]abi.Flow{}
			counts := map[string]int{}
			for name, m := range g.open(c.flows, c.fresh) {
				if name == Translations {
					continue
				}
				g.good(Walk(m, func(key, value []byte) error {
					counts[name]++
					got[Read[abi.FlowKey](key)] = Read[abi.Flow](value)
					return nil
				}))
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(abi.Flow{})); diff != "" {
				t.Errorf("flows (-want +got):\n%s", diff)
			}
			if counts[Flows] != c.inFlows || counts[FreshOut] != c.inFresh {
				t.Errorf("%v, want %d proven and %d fresh", counts, c.inFlows, c.inFresh)
			}
		})
	}
}

func TestASecondResizeBeforeTheFirstSettledKeepsAll(t *testing.T) {
	g := newGround(t)
	all := g.open(1024, 256)
	key := abi.FlowKey{Protocol: 6}
	g.good(all[Flows].Put(key, abi.Flow{LastNs: 1, SinceNs: 1}))
	g.run("tcx-egress", all[Flows])
	g.open(2048, 256) // an apply that failed
	g.takeOver()
	back := g.open(1024, 256)
	h := g.takeOver()
	g.run("tcx-egress", back[Flows])
	g.settle(h)
	g.only()
	var flow abi.Flow
	if err := back[Flows].Lookup(key, &flow); err != nil || back[Flows].MaxEntries() != 1024 {
		t.Errorf("%+v, %v in a table of %d", flow, err, back[Flows].MaxEntries())
	}
}

func TestAFlowWhosePortAnotherOneWasGivenIsForgotten(t *testing.T) {
	g := newGround(t)
	all := g.open(1024, 256)
	wire := abi.FlowKey{Port: [2][2]byte{{4, 0}, {0, 80}}, Protocol: 6}
	flow := func(n byte) (abi.FlowKey, abi.Flow, abi.Translation) {
		key := abi.FlowKey{Port: [2][2]byte{{0, n}, {0, 80}}, Protocol: 6}
		f := abi.Flow{SinceNs: uint64(n), LastNs: monotonic(), Flags: abi.FlowInside | abi.FlowNat, NatPort: [2]byte{4, 0}}
		return key, f, abi.Translation{Inner: key, SinceNs: f.SinceNs, Port: f.NatPort}
	}
	lost, lostFlow, lostWay := flow(1)
	won, wonFlow, wonWay := flow(2)
	g.run("tcx-egress", all[Flows])
	fresh := g.open(2048, 256)
	h := g.takeOver()
	g.good(all[Flows].Put(lost, lostFlow)) // by the programs of before
	lostWay.SinceNs = monotonic()
	lostFlow.SinceNs = lostWay.SinceNs
	g.good(all[Flows].Put(lost, lostFlow))
	g.good(all[Translations].Put(wire, lostWay))
	g.run("tcx-egress", fresh[Flows])
	g.good(fresh[Flows].Put(won, wonFlow)) // by those of today, to which the port looked free
	g.good(fresh[Translations].Put(wire, wonWay))
	g.settle(h)
	var got abi.Translation
	if err := fresh[Translations].Lookup(wire, &got); err != nil || got != wonWay {
		t.Errorf("the way back is %+v (%v), want %+v", got, err, wonWay)
	}
	var f abi.Flow
	if err := fresh[Flows].Lookup(lost, &f); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("the former flow goes on with a port of another's: %+v, %v", f, err)
	}
	if err := fresh[Flows].Lookup(won, &f); err != nil {
		t.Error(err)
	}
}

// plainTaker takes whatever comes into one map.
type plainTaker struct{ *ebpf.Map }

func (p plainTaker) take(e entry) error { return p.Put(e.key, e.value) }

// TestTheChainOfLayoutsIsGeneral adds a version that is made up: one table, by the lower port alone.
func TestTheChainOfLayoutsIsGeneral(t *testing.T) {
	g := newGround(t)
	next := &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 2, ValueSize: 9, MaxEntries: 64}
	last := flowLineage.layouts[len(flowLineage.layouts)-1]
	last.up = func(e entry, _ uint64) (entry, bool) {
		if e.pin == sharedPins[Translations].pin {
			return entry{}, false
		}
		flow := Read[abi.Flow](e.value)
		port := Read[abi.FlowKey](e.key).Port
		return entry{"streams", port[1-flow.Opener][:], append([]byte{flow.State}, e.value[:8]...)}, true
	}
	chain := lineage{
		layouts: append(slices.Clone(flowLineage.layouts[:len(flowLineage.layouts)-1]), last, layout{version: 4, pins: []string{"streams"}}),
		last:    func(e entry) uint64 { return Read[uint64](e.value[1:]) },
		open: func(dir *pin.Dir) (taker, error) {
			m, err := dir.StateMap(next, "streams", 4)
			return plainTaker{m}, err
		},
	}
	out, in := g.former1(16)
	first := v1{protocol: 6, port: 7, idle: 9, flags: formerReplied}
	first.in = false
	was := first.put(g, out, in)
	all := g.open(64, 64) // a daemon of version 3, which left without having taken anything over
	g.good(all[FreshIn].Put(abi.FlowKey{Port: [2][2]byte{{0, 80}, {0, 8}}, Protocol: 17}, abi.Flow{LastNs: 5}))
	h, err := chain.takeOver(g.Dir)
	g.good(err)
	g.good(chain.settle(g.Dir, h))
	m, err := ebpf.LoadPinnedMap(g.StateMapPath("streams", 4), nil)
	g.good(err)
	defer m.Close()
	got := map[[2]byte][9]byte{}
	g.good(Walk(m, func(key, value []byte) error {
		got[[2]byte(key)] = [9]byte(value)
		return nil
	}))
	want := map[[2]byte][9]byte{
		{0, 80}: [9]byte(append([]byte{byte(abi.FlowEstablished)}, bytesOf(was)...)),
		{0, 8}:  [9]byte(append([]byte{byte(abi.FlowNew)}, bytesOf(uint64(5))...)),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("version 4 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"streams-v4"}, g.pins()); diff != "" {
		t.Errorf("pins:\n%s", diff)
	}
}

func TestWithoutFormerTablesNothingIsTouched(t *testing.T) {
	g := newGround(t)
	g.settle(g.takeOver()) // no tables at all
	if len(g.pins()) != 0 {
		t.Errorf("pins %q", g.pins())
	}
	g.open(64, 64)
	g.settle(g.takeOver())
	g.only()
	if _, err := os.Stat(g.StateMapPath("flows", 3)); errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
