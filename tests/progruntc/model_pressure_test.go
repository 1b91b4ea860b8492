package progruntc_test

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"github.com/cilium/ebpf"

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

// TestFlowsUnderPressure: the stated rule. Who is not proven competes with his like, who is proven stays, and nobody has more
// than half.
func TestFlowsUnderPressure(t *testing.T) {
	m := newModelSite(t)
	m.sub(t, "a flood takes nothing from proven flows, nor from the other side's", func(t *testing.T) {
		if err := m.clear(); err != nil {
			t.Fatal(err)
		}
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
	})
	m.sub(t, "one owner has half of the table at most, and a full one takes nobody", func(t *testing.T) {
		if err := m.clear(); err != nil {
			t.Fatal(err)
		}
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
	})
}

// TestNoTwoFlowsShareATranslation: two workloads ask for the same few ports on all CPUs at once.
func TestNoTwoFlowsShareATranslation(t *testing.T) {
	m := newModelSite(t)
	if err := m.clear(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	owners, exhausted, packets := map[string]string{}, 0, 0
	seen := map[string]string{}
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			rng := rand.New(rand.NewPCG(uint64(worker), 1))
			iface, addr := "wl1", w1v4
			if worker%2 == 1 {
				iface, addr = "wl2", w2v4
			}
			for range 1500 {
				from, to := ends(addr, 4000+rng.IntN(40), client4, 53)
				to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(100 + rng.IntN(12))}), to.Port())
				frame := datagram(from, to).Frame(m.macs[iface])
				opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: skBuff{Ifindex: m.index[iface]}}
				verdict, err := m.generations[withSNAT].Programs["workload_ingress"].Run(opts)
				if err != nil {
					t.Error(err)
					return
				}
				flow := from.String() + " > " + to.String()
				mu.Lock()
				packets++
				if verdict == tcxDrop {
					exhausted++
				} else {
					left := sourceOf(opts.DataOut)
					wire := left.String() + " > " + to.String()
					if left.Addr().String() != self4 || left.Port() < 2000 || left.Port() > 2003 {
						t.Errorf("%s left from %s", flow, left)
					}
					if other, ok := owners[wire]; ok && other != flow {
						t.Errorf("%s and %s both left as %s", other, flow, wire)
					}
					if other, ok := seen[flow]; ok && other != wire {
						t.Errorf("%s left as %s and as %s", flow, other, wire)
					}
					owners[wire], seen[flow] = flow, wire
				}
				mu.Unlock()
			}
		}()
	}
	wait.Wait()
	if len(owners) != 12*4 || exhausted == 0 {
		t.Errorf("%d tuples of 48 are in use, %d of %d packets found none", len(owners), exhausted, packets)
	}
	have, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	var total uint64
	for _, f := range have.flows {
		total += f.Side[0].Packets
	}
	if want := uint64(packets - exhausted); total != want || len(have.translations) != len(owners) {
		t.Errorf("flows count %d packets in %d translations, %d packets left in %d", total, len(have.translations), want, len(owners))
	}
}
