package progruntc_test

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"sluice/tests/flowmodel"
	"sluice/xdp/abi"
	"sluice/xdp/packet"
)

const (
	withSNAT    = 0 // generations of modelStates
	withoutSNAT = 3
)

// segment is a TCP packet without payload.
func segment(src, dst netip.AddrPort, flags uint8, seq, ack uint32) flowmodel.Packet {
	return flowmodel.Packet{Protocol: packet.TCP, Src: src.Addr(), Dst: dst.Addr(), Sport: src.Port(), Dport: dst.Port(), Flags: flags, Seq: seq, Ack: ack, TTL: 64}
}

func datagram(src, dst netip.AddrPort) flowmodel.Packet {
	return flowmodel.Packet{Protocol: packet.UDP, Src: src.Addr(), Dst: dst.Addr(), Sport: src.Port(), Dport: dst.Port(), TTL: 64}
}

func in(iface string) flowmodel.Hop { return flowmodel.Hop{Hook: flowmodel.Hook{Interface: iface}} }

// must sends a packet that has to leave with a reason.
func (m *modelSite) must(t *testing.T, generation int, h flowmodel.Hop, p flowmodel.Packet, want abi.Reason) {
	t.Helper()
	if _, _, _, reason := m.send(t, generation, h, p, 0, want); reason != want {
		t.Fatalf("%s: %s: the reason is %s, want %s", h.Hook, p, reason, want)
	}
}

// session opens one and proves it: opener and other are the hooks of the two sides.
func (m *modelSite) session(t *testing.T, opener, other flowmodel.Hop, from, to netip.AddrPort, out, back abi.Reason) {
	t.Helper()
	m.must(t, withoutSNAT, opener, segment(from, to, packet.SYN, 1000, 0), out)
	m.must(t, withoutSNAT, other, segment(to, from, packet.SYN|packet.ACK, 5000, 1001), back)
	m.must(t, withoutSNAT, opener, segment(from, to, packet.ACK, 1001, 5001), out)
}

// flood runs n packets, each from another source, and lets nobody look at them.
func (m *modelSite) flood(t *testing.T, program string, h flowmodel.Hop, n int, make func(i int) flowmodel.Packet) {
	t.Helper()
	for i := range n {
		opts := &ebpf.RunOptions{Data: make(i).Frame(m.macs[h.Interface]), Context: skBuff{Ifindex: m.index[h.Interface]}}
		if _, err := m.generations[withoutSNAT].Programs[program].Run(opts); err != nil {
			t.Fatal(err)
		}
	}
	for iface := range m.slots {
		m.reasonOf(t, iface, abi.ReasonNone)
	}
}

func ends(a string, aPort int, b string, bPort int) (netip.AddrPort, netip.AddrPort) {
	return netip.AddrPortFrom(netip.MustParseAddr(a), uint16(aPort)), netip.AddrPortFrom(netip.MustParseAddr(b), uint16(bPort))
}

func (m *modelSite) tableOf(t *testing.T, protocol uint8, a, b netip.AddrPort) flowmodel.Table {
	t.Helper()
	have, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	return have.flows[flowmodel.KeyOf(protocol, a, b, "")].table
}

func (m *modelSite) sizes(t *testing.T) map[flowmodel.Table]int {
	t.Helper()
	have, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	n := map[flowmodel.Table]int{}
	for _, f := range have.flows {
		n[f.table]++
	}
	return n
}

// aFloodTakesNothing from proven flows, nor from the other side's: the stated rule.
func (m *modelSite) aFloodTakesNothing(t *testing.T) {
	for i := range 8 {
		from, to := ends(w1v4, 4000+i, client4, 80)
		m.session(t, in("wl1"), in("uplink"), from, to, abi.ReasonForwarded, abi.ReasonDelivered)
		from, to = ends(client4, 6000+i, w1v4, 80)
		m.session(t, in("uplink"), in("wl1"), from, to, abi.ReasonDelivered, abi.ReasonForwarded)
		from, to = ends(w1v4, 7000+i, client4, 53)
		m.must(t, withoutSNAT, in("wl1"), datagram(from, to), abi.ReasonForwarded) // not answered
	}
	to := netip.MustParseAddrPort(w1v4 + ":80")
	m.flood(t, "uplink_ingress", in("uplink"), 3*abi.FreshLeast, func(i int) flowmodel.Packet {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), uint16(i))
		return segment(from, to, packet.SYN, 1, 0)
	})
	if n := m.sizes(t); n[flowmodel.Proven] != 16 || n[flowmodel.FreshOut] != 8 || n[flowmodel.FreshIn] < abi.FreshLeast/2 {
		t.Errorf("after the outside's flood: %v", n)
	}
	from := netip.MustParseAddr(w1v4)
	m.flood(t, "workload_ingress", in("wl1"), 3*abi.FreshLeast, func(i int) flowmodel.Packet {
		to := netip.AddrFrom4([4]byte{198, 51, 100, byte(i >> 8)})
		return datagram(netip.AddrPortFrom(from, uint16(20000+i%256)), netip.AddrPortFrom(to, 99))
	})
	if n := m.sizes(t); n[flowmodel.Proven] != 16 || n[flowmodel.FreshIn] < abi.FreshLeast/2 {
		t.Errorf("after the workload's flood: %v", n)
	}
	for i := range 8 {
		from, to := ends(w1v4, 4000+i, client4, 80)
		m.must(t, withoutSNAT, in("uplink"), segment(to, from, packet.ACK, 5001, 1001), abi.ReasonDelivered)
		from, to = ends(client4, 6000+i, w1v4, 80)
		m.must(t, withoutSNAT, in("wl1"), segment(to, from, packet.ACK, 5001, 1001), abi.ReasonForwarded)
	}
}

// oneOwnerHasHalf of the proven flows at most, and where there is no room sessions work without being proven.
func (m *modelSite) oneOwnerHasHalf(t *testing.T) {
	for i := range modelFlows {
		from, to := ends(w1v4, 4000+i, client4, 80)
		m.session(t, in("wl1"), in("uplink"), from, to, abi.ReasonForwarded, abi.ReasonDelivered)
		want := flowmodel.Proven
		if i >= modelFlows/2 {
			want = flowmodel.FreshOut
		}
		if got := m.tableOf(t, packet.TCP, from, to); got != want {
			t.Fatalf("session %d of workload one is in %s, want %s", i+1, got, want)
		}
	}
	for i := range modelFlows {
		from, to := ends(w2v4, 4000+i, client4, 80)
		m.session(t, in("wl2"), in("uplink"), from, to, abi.ReasonForwarded, abi.ReasonDelivered)
	}
	if n := m.sizes(t); n[flowmodel.Proven] != modelFlows || n[flowmodel.FreshOut] != modelFlows {
		t.Errorf("in the end: %v", n)
	}
}

// wires notes which flow left as what, from many threads at once.
type wires struct {
	sync.Mutex
	owner, seen     map[string]string
	sent, exhausted int
}

func (w *wires) note(t *testing.T, flow string, to netip.AddrPort, left netip.AddrPort, dropped bool) {
	w.Lock()
	defer w.Unlock()
	w.sent++
	if dropped {
		w.exhausted++
		return
	}
	wire := left.String() + " > " + to.String()
	if left.Addr().String() != self4 || left.Port() < 2000 || left.Port() > 2003 {
		t.Errorf("%s left from %s", flow, left)
	}
	if other, ok := w.owner[wire]; ok && other != flow {
		t.Errorf("%s and %s both left as %s", other, flow, wire)
	}
	if other, ok := w.seen[flow]; ok && other != wire {
		t.Errorf("%s left as %s and as %s", flow, other, wire)
	}
	w.owner[wire], w.seen[flow] = flow, wire
}

// noTwoFlowsShareATranslation, though two workloads ask for the same few ports on all CPUs at once; and no packet is lost to the
// counters.
func (m *modelSite) noTwoFlowsShareATranslation(t *testing.T) {
	w := &wires{owner: map[string]string{}, seen: map[string]string{}}
	var all errgroup.Group
	for worker := range 8 {
		all.Go(func() error {
			return m.gateway.run(func() error { return m.ask(t, w, rand.New(rand.NewPCG(uint64(worker), 1)), worker%2 == 0) })
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(w.owner) != 12*4 || w.exhausted == 0 {
		t.Errorf("%d tuples of 48 are in use, %d of %d packets found none", len(w.owner), w.exhausted, w.sent)
	}
	have, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	var total uint64
	for _, f := range have.flows {
		total += f.Sent.Packets
	}
	if want := uint64(w.sent - w.exhausted); total != want || len(have.translations) != len(w.owner) {
		t.Errorf("flows count %d packets in %d translations, %d packets left in %d", total, len(have.translations), want, len(w.owner))
	}
	for iface := range m.slots {
		m.reasonOf(t, iface, abi.ReasonNone)
	}
}

// ask sends datagrams of few flows to few hosts, from workload one or two.
func (m *modelSite) ask(t *testing.T, w *wires, rng *rand.Rand, one bool) error {
	iface, addr := "wl1", w1v4
	if !one {
		iface, addr = "wl2", w2v4
	}
	for range 1500 {
		from, to := ends(addr, 4000+rng.IntN(40), client4, 53)
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(100 + rng.IntN(12))}), to.Port())
		frame := datagram(from, to).Frame(m.macs[iface])
		opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: skBuff{Ifindex: m.index[iface]}}
		verdict, err := m.generations[withSNAT].Programs["workload_ingress"].Run(opts)
		if err != nil {
			return err
		}
		w.note(t, from.String()+" > "+to.String(), to, sourceOf(opts.DataOut), verdict == tcxDrop)
	}
	return nil
}
