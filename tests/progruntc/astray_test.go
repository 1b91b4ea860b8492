package progruntc_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
)

// plaintext is a site without strict tunnels: uplinks do not look at what was judged.
func plaintext(s *tc.State) { s.Generation.Strict = nil }

// TestWhatWasJudgedForAWorkloadIsJudgedWhereItLeavesInstead: the kernel has no route to the workload, and takes the default route.
func TestWhatWasJudgedForAWorkloadIsJudgedWhereItLeavesInstead(t *testing.T) {
	h := newHidden(t, plaintext, open(tc.RoleTunnel, tc.RoleWorkload), open(tc.RoleWorkload, tc.RoleWorkload), func(s *tc.State) {
		for i := range s.Interfaces {
			if s.Interfaces[i].Name == "wl2" {
				s.Interfaces[i].SNAT = tc.SNAT{IPv4: true, IPv6: true}
			}
		}
	})
	for _, c := range []struct {
		at, line string // left to the kernel by the hook of at
		left     string // what leaves by the uplink; "": nothing
	}{
		{"tap0", "tcp 10.20.0.9:4000 > 10.0.1.10:80", ""},
		{"wl2", "tcp 10.0.1.20:4000 > 10.0.1.10:80", self4},
		{"wl2", "tcp [fd00:1::20]:4000 > [fd00:1::10]:80", self6},
	} {
		name, device := h.program(t, h.g, "uplink egress")
		ctx := skBuff{Ifindex: uint32(device.Index), IngressIfindex: uint32(index(t, c.at).Index), Mark: h.leftFor(t, c.at, c.line)}
		if ctx.Mark == 0 {
			t.Fatalf("%s: it was not left to the kernel for the workload", c.line)
		}
		verdict, left := run(t, h.g.Programs[name], ctx, frameOf(t, c.line))
		if c.left == "" && verdict != tcxDrop {
			t.Errorf("%s: %s left by the uplink (%d)", c.line, parseFrame(left), int32(verdict))
		}
		if c.left != "" && parseFrame(left).src.String() != c.left {
			t.Errorf("%s: left as %s, want a source of %s", c.line, parseFrame(left), c.left)
		}
	}
}

// leftFor is the mark of a packet that an ingress hook leaves to the kernel on its way into a workload, by its TTL.
func (h *hidden) leftFor(t *testing.T, at, line string) uint32 {
	t.Helper()
	name, device := h.program(t, h.g, at+" ingress")
	frame := frameOf(t, line+" ttl=1")
	copy(frame, device.HardwareAddr)
	var left fullSKBuff
	if _, err := h.g.Programs[name].Run(&ebpf.RunOptions{Data: frame, ContextOut: &left, Context: skBuff{Ifindex: uint32(device.Index)}}); err != nil {
		t.Fatal(err)
	}
	return left.Mark
}

// proven makes a flow that the outside opens to a workload, and has its first direction noted.
func (h *hidden) proven(t *testing.T, address string) abi.Flow {
	t.Helper()
	there, back := frameOf(t, "tcp 198.51.100.7:9999 > "+address+":80 flags=A"), frameOf(t, "tcp "+address+":80 > 198.51.100.7:9999 flags=A")
	from := map[string]string{w1v4: "wl1 ingress", w2v4: "wl2 ingress"}[address]
	h.pass(t, "uplink ingress", "", there, abi.ReasonDelivered)
	h.pass(t, from, "", back, abi.ReasonForwarded)
	h.pass(t, "uplink ingress", "", there, abi.ReasonDelivered)
	h.pass(t, "uplink ingress", "", there, abi.ReasonDelivered)
	where, flow := h.flow(t, client4, 9999, address, 80, 6)
	if where != "flows" || flow.There.Epoch != flow.Epoch {
		t.Fatalf("in %q, its way is not known: %+v", where, flow)
	}
	return flow
}

// TestAWayThatIsAnotherFlowsLeadsNobody: a CPU that was late writes it into an element that another flow has by now.
func TestAWayThatIsAnotherFlowsLeadsNobody(t *testing.T) {
	h := newHidden(t, plaintext)
	other, mine := h.proven(t, w1v4), h.proven(t, w2v4)
	stray := mine
	stray.There = other.There
	key, _ := abi.KeyOf(netip.MustParseAddr(client4), netip.MustParseAddr(w2v4), 9999, 80, 6)
	if err := h.flowTable(t, "flows").Put(key, stray); err != nil {
		t.Fatal(err)
	}
	h.pass(t, "uplink ingress", "", frameOf(t, "tcp 198.51.100.7:9999 > 10.0.1.20:80 flags=A"), abi.ReasonDelivered)
	if _, now := h.flow(t, client4, 9999, w2v4, 80, 6); now.There != mine.There {
		t.Errorf("a packet for workload 2 went the way to workload 1: %+v, want %+v", now.There, mine.There)
	}
}

// TestAPaddedFrameThatIsLargerThanTheLinkIsTheKernels: which cuts it to what its IP header says.
func TestAPaddedFrameThatIsLargerThanTheLinkIsTheKernels(t *testing.T) {
	s := newSite(t, plaintext)
	g := s.live(t)
	for _, line := range []string{"udp 10.0.1.10:4000 > 198.51.100.7:53", "udp [fd00:1::10]:4000 > [2001:db8:7::7]:53"} {
		for length, reason := range map[int]abi.Reason{1514: abi.ReasonForwarded, 1515: abi.ReasonStackMTU} {
			frame := make([]byte, length)
			copy(frame, frameOf(t, line))
			st := step{at: "wl1 ingress", line: line, frame: frame, reason: reason}
			if reason == abi.ReasonForwarded {
				st.to = "uplink"
			}
			s.try(t, g, st)
		}
	}
}

// TestWhoWatchesDropsIsToldWhatWasPaced.
func TestWhoWatchesDropsIsToldWhatWasPaced(t *testing.T) {
	s := newSite(t, plaintext, paced(mbps/10, false))
	p := s.pacing(t, "wl1")
	seen := make(chan xdp.Sample, 1000)
	ctx, stop := context.WithCancel(t.Context())
	ended, begun := make(chan error, 1), make(chan struct{}, 1)
	go func() {
		ended <- xdp.WatchDrops(ctx, s.dir, 1000, func(d xdp.Sample) { seen <- d }, func(xdp.Unseen) {
			select {
			case begun <- struct{}{}:
			default:
			}
		})
	}()
	<-begun
	var got xdp.Sample
	awaitTrue(t, "a paced packet is told of", func() bool {
		if _, passed := p.send(flowA, 1500); passed {
			return false
		}
		select {
		case got = <-seen:
			return got.Reason == abi.ReasonPacedDrop
		default:
			return false
		}
	})
	if want := netip.MustParseAddrPort("10.0.1.10:4000"); got.Src != want || got.Protocol != 17 {
		t.Errorf("told of %+v, want a packet from %s", got, want)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestAFlowThatTurnsToALANMeetsItsPolicy, though its sender's was asked before.
func TestAFlowThatTurnsToALANMeetsItsPolicy(t *testing.T) {
	s := newSite(t, plaintext, guarded)
	g := s.live(t)
	web := func(port int) step {
		return step{at: "wl1 ingress", line: fmt.Sprintf("tcp 10.0.1.10:4000 > 198.51.100.7:%d", port), reason: abi.ReasonForwarded, to: "uplink"}
	}
	s.try(t, g, web(53))
	s.try(t, g, web(53))
	s.try(t, g, web(8080))
	s.gateway.route(t, "198.51.100.7/32", lan4, "down")
	s.try(t, g, web(53).dropped(abi.ReasonDefaultDrop))
	for range 2 {
		st := web(8080)
		st.to = "down"
		s.try(t, g, st)
	}
}
