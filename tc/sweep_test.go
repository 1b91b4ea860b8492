package tc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// tables are pinned flow tables without programs.
type tables struct {
	*Subsystem
	t   testing.TB
	dir *pin.Dir
	now int64
	on  map[string]*ebpf.Map
}

func newTables(t testing.TB, flows, fresh uint32) *tables {
	t.Helper()
	parent, err := os.MkdirTemp("/sys/fs/bpf", "sluice-tc-test-")
	if err != nil {
		t.Fatalf("this test needs root and a bpffs at /sys/fs/bpf: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	path := filepath.Join(parent, "site")
	dir, err := pin.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	x := &tables{t: t, dir: dir, Subsystem: New(slog.New(slog.DiscardHandler), Options{BPFDir: path})}
	x.resize(flows, fresh)
	if x.now, err = monotonic(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		x.sweeper.close()
		_ = table.CloseAll(x.on)
	})
	return x
}

func (x *tables) resize(flows, fresh uint32) {
	x.t.Helper()
	spec, err := loadSweep()
	if err != nil {
		x.t.Fatal(err)
	}
	for name, size := range map[string]uint32{table.Flows: flows, table.Translations: flows, table.FreshOut: fresh, table.FreshIn: fresh} {
		spec.Maps[name].MaxEntries = size
	}
	_ = table.CloseAll(x.on)
	if x.on, err = table.OpenState(x.dir, spec, append([]string{table.FlowPressure}, sweptTables...)...); err != nil {
		x.t.Fatal(err)
	}
}

func addr(text string) abi.Addr { return netip.MustParseAddr(text).As16() }

// put enters a flow that was last seen so long ago. It began ten seconds before.
func (x *tables) put(name, from, to string, protocol uint8, idle time.Duration, f abi.Flow) abi.FlowKey {
	x.t.Helper()
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	key, opener := abi.KeyOf(src.Addr(), dst.Addr(), src.Port(), dst.Port(), protocol)
	f.Opener = uint8(opener)
	f.LastNs = uint64(x.now - int64(idle))
	f.SinceNs = f.LastNs - uint64(10*time.Second)
	if err := x.on[name].Put(key, f); err != nil {
		x.t.Fatal(err)
	}
	return key
}

func (x *tables) sweep() *Swept {
	x.t.Helper()
	swept, err := x.Sweep(x.t.Context())
	if err != nil {
		x.t.Fatalf("%+v", err)
	}
	return swept
}

// nat is the flow as one that is translated to 198.18.0.2 with that port.
func nat(f abi.Flow, port uint16) abi.Flow {
	f.Flags |= abi.FlowNat
	f.NatAddr, f.NatPort = addr("198.18.0.2"), networkOrder(port)
	return f
}

// translate enters the translation of a flow to 203.0.113.9:443.
func (x *tables) translate(key abi.FlowKey, f abi.Flow, since uint64) abi.FlowKey {
	x.t.Helper()
	wire, _ := abi.KeyOf(netip.AddrFrom16(f.NatAddr), netip.MustParseAddr("203.0.113.9"), binary.BigEndian.Uint16(f.NatPort[:]), 443, protoTCP)
	if err := x.on[table.Translations].Put(wire, abi.Translation{Inner: key, SinceNs: since, Addr: f.NatAddr, Port: f.NatPort}); err != nil {
		x.t.Fatal(err)
	}
	return wire
}

func networkOrder(port uint16) (out [2]byte) {
	binary.BigEndian.PutUint16(out[:], port)
	return out
}

func state(s abi.FlowState) abi.Flow { return abi.Flow{State: uint8(s)} }

// TestTheSweepDeletesWhatHasExpired holds each timeout from both sides.
func TestTheSweepDeletesWhatHasExpired(t *testing.T) {
	reset, tomb, inside := state(abi.FlowClosed), state(abi.FlowEstablished), state(abi.FlowClosed)
	inside.Flags = abi.FlowInside
	reset.Flags = abi.FlowRst
	tomb.Judged = uint8(abi.ReasonFlowRevoked)
	for _, c := range []struct {
		name     string
		protocol uint8
		flow     abi.Flow
		timeout  time.Duration
	}{
		{"tcp new", protoTCP, state(abi.FlowNew), 60 * time.Second},
		{"tcp replied", protoTCP, state(abi.FlowReplied), 60 * time.Second},
		{"tcp established", protoTCP, state(abi.FlowEstablished), 7440 * time.Second},
		{"tcp closing", protoTCP, state(abi.FlowClosing), 120 * time.Second},
		{"tcp closed", protoTCP, inside, 30 * time.Second},
		{"tcp closed, from outside", protoTCP, state(abi.FlowClosed), 70 * time.Second},
		{"tcp reset", protoTCP, reset, 10 * time.Second},
		{"tcp revoked", protoTCP, tomb, 60 * time.Second},
		{"udp", protoUDP, state(abi.FlowNew), 60 * time.Second},
		{"udp replied", protoUDP, state(abi.FlowReplied), 180 * time.Second},
		{"icmp", protoICMP, state(abi.FlowReplied), 30 * time.Second},
		{"icmpv6", protoICMPv6, state(abi.FlowNew), 30 * time.Second},
		{"sctp", protoSCTP, state(abi.FlowNew), 60 * time.Second},
		{"gre replied", 47, state(abi.FlowReplied), 600 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTables(t, 64, 64)
			for i, name := range []string{table.Flows, table.FreshOut, table.FreshIn} {
				to := fmt.Sprintf("203.0.113.%d:443", i)
				x.put(name, "10.0.1.10:1", to, c.protocol, c.timeout-5*time.Second, c.flow)
				x.put(name, "10.0.1.10:2", to, c.protocol, c.timeout+time.Second, c.flow)
			}
			listed, err := x.Flows(t.Context())
			if err != nil || len(listed) != 3 {
				t.Errorf("listed before the sweep: %+v, %v", listed, err)
			}
			swept := x.sweep()
			if swept.Expired != 3 || swept.Flows != (TableFill{1, 64}) || swept.FreshOut != (TableFill{1, 64}) || swept.FreshIn != (TableFill{1, 64}) {
				t.Errorf("%+v", swept)
			}
			if again := x.sweep(); again.Expired != 0 || again.Flows.Entries != 1 {
				t.Errorf("a second time: %+v", again)
			}
		})
	}
}

func TestTheSweepCountsStatesAndShares(t *testing.T) {
	x := newTables(t, 64, 64)
	owned := func(owner uint32, s abi.FlowState) abi.Flow { return abi.Flow{Owner: owner, State: uint8(s)} }
	for i := range 5 {
		x.put(table.Flows, fmt.Sprintf("10.0.1.10:%d", 1+i), "203.0.113.9:443", protoTCP, 0, owned(7, abi.FlowEstablished))
	}
	x.put(table.Flows, "10.0.1.20:1", "203.0.113.9:443", protoTCP, 0, owned(8, abi.FlowClosing))
	x.put(table.Flows, "198.18.0.2:1", "203.0.113.9:443", protoTCP, 0, owned(0, abi.FlowEstablished))
	x.put(table.FreshOut, "10.0.1.20:2", "203.0.113.9:443", protoTCP, 0, owned(8, abi.FlowNew)) // takes no part of flows
	x.put(table.FreshIn, "203.0.113.9:5", "10.0.1.20:80", protoTCP, 0, abi.Flow{Judged: uint8(abi.ReasonFlowRevoked)})
	for owner, n := range map[uint32]uint32{8: 40, 9: 3} { // of a former sweep
		if err := x.on[table.FlowShares].Put(owner, n); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // nothing of a sweep is left for the next
		swept := x.sweep()
		want := map[string]int{"new": 1, "replied": 0, "established": 6, "closing": 1, "closed": 0, "revoked": 1}
		if diff := cmp.Diff(want, swept.States); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
		shares := map[uint32]uint32{}
		var owner, n uint32
		for all := x.on[table.FlowShares].Iterate(); all.Next(&owner, &n); {
			shares[owner] = n
		}
		if diff := cmp.Diff(map[uint32]uint32{7: 5, 8: 1}, shares); diff != "" {
			t.Errorf("shares (-want +got):\n%s", diff)
		}
	}
}

func TestTheSweepDropsTranslationsWithoutTheirFlow(t *testing.T) {
	x := newTables(t, 64, 64)
	at := func(port int) string { return fmt.Sprintf("10.0.1.10:%d", port) }
	flow := func(name string, n int, idle time.Duration) (abi.FlowKey, abi.Flow, uint64) {
		f := nat(abi.Flow{Flags: abi.FlowInside}, uint16(5000+n))
		key := x.put(name, at(n), "203.0.113.9:443", protoTCP, idle, f)
		return key, f, uint64(x.now-int64(idle)) - uint64(10*time.Second)
	}
	var keep, gone []abi.FlowKey
	key, f, since := flow(table.Flows, 1, 0)
	keep = append(keep, x.translate(key, f, since))
	key, f, since = flow(table.FreshOut, 2, 0)
	keep = append(keep, x.translate(key, f, since))
	key, f, since = flow(table.Flows, 3, 61*time.Second) // expires in this very sweep
	gone = append(gone, x.translate(key, f, since))
	key, f, _ = flow(table.Flows, 4, 0)
	gone = append(gone, x.translate(key, f, 5)) // of a former flow with the same key
	key, f, since = flow(table.Flows, 5, 0)
	f.NatPort = networkOrder(6000)
	gone = append(gone, x.translate(key, f, since)) // the flow has another port
	key.Port[0] = networkOrder(9999)
	f.NatPort = networkOrder(6001)
	gone = append(gone, x.translate(key, f, since)) // no such flow
	f.NatPort = networkOrder(6002)
	keep = append(keep, x.translate(key, f, uint64(x.now))) // its flow is about to be entered
	swept := x.sweep()
	if swept.Orphans != len(gone) || swept.Translations != len(keep) {
		t.Errorf("%+v, want %d orphans and %d left", swept, len(gone), len(keep))
	}
	var way abi.Translation
	for i, key := range keep {
		if err := x.on[table.Translations].Lookup(key, &way); err != nil {
			t.Errorf("translation %d to keep: %v", i, err)
		}
	}
	for i, key := range gone {
		if err := x.on[table.Translations].Lookup(key, &way); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("translation %d to go: %v", i, err)
		}
	}
}

func TestTheSweepFollowsTablesThatWereReplaced(t *testing.T) {
	x := newTables(t, 64, 64)
	x.put(table.Flows, "10.0.1.10:1", "203.0.113.9:443", protoTCP, 0, state(abi.FlowEstablished))
	if swept := x.sweep(); swept.Flows != (TableFill{1, 64}) {
		t.Errorf("%+v", swept)
	}
	x.resize(128, 64) // and the daemon dies before it took anything over
	if swept := x.sweep(); swept.Flows != (TableFill{1, 128}) {
		t.Errorf("after a resize: %+v", swept)
	}
	if formers, err := x.dir.Formers("flows", 3); err != nil || len(formers) != 0 {
		t.Errorf("former tables %q (%v) are left", formers, err)
	}
}

func TestWithoutTablesThereIsNothingToSweep(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler), Options{BPFDir: "/sys/fs/bpf/sluice-no-such-site"})
	if swept, err := s.Sweep(t.Context()); swept != nil || err != nil {
		t.Errorf("%+v, %v", swept, err)
	}
	if list, err := s.SelectFlows(t.Context(), FlowQuery{}); err != nil || list.Total != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if n, err := s.ClearFlows(t.Context(), FlowQuery{}); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestPressureIsTheSumOfAllCPUs(t *testing.T) {
	x := newTables(t, 64, 64)
	perCPU := make([]abi.FlowPressure, ebpf.MustPossibleCPU())
	for i := range perCPU {
		perCPU[i] = abi.FlowPressure{Full: 1, Crowded: 2, Unmade: 3}
	}
	if err := x.on[table.FlowPressure].Put(uint32(0), perCPU); err != nil {
		t.Fatal(err)
	}
	n := uint64(len(perCPU))
	if got := x.sweep().Pressure; got != (FlowPressure{n, 2 * n, 3 * n}) {
		t.Errorf("%+v", got)
	}
}

// fill enters so many flows at once.
func (x *tables) fill(name string, n int, f abi.Flow) {
	x.t.Helper()
	keys, values := make([]abi.FlowKey, n), slices.Repeat([]abi.Flow{f}, n)
	for i := range keys {
		keys[i].Protocol = protoTCP
		keys[i].Addr = [2]abi.Addr{addr("10.0.1.10"), addr("203.0.113.9")}
		binary.BigEndian.PutUint32(keys[i].Addr[0][12:], uint32(i))
	}
	if _, err := x.on[name].BatchUpdate(keys, values, nil); err != nil {
		x.t.Fatal(err)
	}
}

// BenchmarkSweep is what a sweep of a full table of the reference file costs, and what it takes to list it.
func BenchmarkSweep(b *testing.B) {
	const flows = 524288
	x := newTables(b, flows, 65536)
	f := abi.Flow{State: uint8(abi.FlowEstablished), LastNs: uint64(x.now), SinceNs: uint64(x.now), Owner: 7}
	x.fill(table.Flows, flows, f)
	x.fill(table.FreshIn, 50000, f)
	x.sweep()
	b.Run("sweep", func(b *testing.B) {
		for b.Loop() {
			if swept := x.sweep(); swept.Flows.Entries != flows {
				b.Fatalf("%+v", swept)
			}
		}
	})
	b.Run("show", func(b *testing.B) {
		for b.Loop() {
			if list, err := x.SelectFlows(b.Context(), FlowQuery{Limit: 100}); err != nil || len(list.Flows) != 100 {
				b.Fatal(err)
			}
		}
	})
	b.Run("resize", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			x.resize(flows+uint32(i%2)+1, 65536)
			h, err := table.TakeOver(x.dir)
			if err = errors.Join(err, h.Settle(x.dir)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
