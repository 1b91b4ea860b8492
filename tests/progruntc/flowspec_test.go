package progruntc_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// flowspec is the overlay, and sets it.
func (s *site) flowspec(t testing.TB) (f *xdp.FlowSpec, set func(...xdp.FlowSpecFilter)) {
	t.Helper()
	f, err := xdp.OpenFlowSpec(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, func(filters ...xdp.FlowSpecFilter) {
		t.Helper()
		if err := f.Set(filters); err != nil {
			t.Fatal(err)
		}
	}
}

// everything is a filter that every packet meets, or with prefixes what goes there.
func everything(to ...string) xdp.FlowSpecFilter {
	r := classify.Rule{Protocol: classify.AnyProtocol}
	if len(to) > 0 {
		r.To = prefixes(to...)
	}
	return xdp.FlowSpecFilter{Key: "everything", Rules: []classify.Rule{r}}
}

func dropping(f xdp.FlowSpecFilter) xdp.FlowSpecFilter {
	f.Drop = true
	return f
}

var (
	webIn    = step{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1"}
	web6In   = step{at: "uplink ingress", line: "tcp [2001:db8:7::7]:9999 > [fd00:1::10]:80", reason: abi.ReasonDelivered, to: "wl1"}
	tunnelIn = step{at: "tap0 ingress", line: "tcp 10.20.0.9:9999 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1"}
)

// filtered is a step that a filter ends.
func filtered(st step, reason abi.Reason) step {
	st.reason, st.to = reason, ""
	return st
}

// TestFlowSpecHoldsWhereTcJudgesIngressPolicy: on tunnels, and on uplinks that XDP does not guard; also on the short way.
func TestFlowSpecHoldsWhereTcJudgesIngressPolicy(t *testing.T) {
	s := newSite(t, judged, open(tc.RoleTunnel, tc.RoleWorkload))
	f, set := s.flowspec(t)
	g := s.live(t)
	try := func(steps ...step) {
		t.Helper()
		for _, st := range steps {
			s.try(t, g, st)
		}
	}
	out := step{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", reason: abi.ReasonForwarded, to: "uplink"}
	answer := step{at: "uplink ingress", line: "udp 198.51.100.7:53 > 10.0.1.10:4000", reason: abi.ReasonDelivered, to: "wl1"}
	try(webIn, web6In, tunnelIn, out, answer, answer)
	_, flow := s.flow(t, "10.0.1.10", 4000, client4, 53, 17)
	if flow.Back.Leads == 0 {
		t.Error("the answers do not take the short way")
	}
	set(dropping(everything()))
	const drop = abi.ReasonFlowspecDrop
	try(filtered(webIn, drop), filtered(web6In, drop), filtered(answer, drop), filtered(tunnelIn, drop),
		filtered(step{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 198.18.0.2:443"}, drop),
		step{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 198.18.0.2:22", reason: abi.ReasonLocal}, // management:
		step{at: "uplink ingress", line: "tcp 198.18.0.1:9999 > 198.18.0.2:179", reason: abi.ReasonLocal},  // system
		out)
	if hits, err := f.Hits("everything"); err != nil || hits.Packets != 5 || hits.Dropped != 5 || hits.Bytes == 0 || hits.Last == 0 {
		t.Errorf("the filter counts %+v (%v), want five packets", hits, err)
	}
	bans, err := xdp.OpenBans(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer bans.Close()
	ban := netip.MustParsePrefix("198.51.100.7/32")
	if err := bans.Set(ban, 0); err != nil {
		t.Fatal(err)
	}
	try(filtered(webIn, abi.ReasonBanned))
	if err := bans.Remove(ban); err != nil {
		t.Fatal(err)
	}
	hole := dropping(everything("10.0.1.10/32"))
	hole.Blackhole = true
	set(hole)
	try(filtered(webIn, abi.ReasonBlackhole), web6In)
	set()
	try(webIn, tunnelIn, answer) // no flow was revoked
}

func TestFlowSpecOfAGuardedUplinkIsXDPsMatter(t *testing.T) {
	s := newSite(t)
	_, set := s.flowspec(t)
	set(dropping(everything()))
	s.try(t, s.live(t), webIn)
}

func TestFlowSpecAtTcLimitsAndMarks(t *testing.T) {
	s := newSite(t, judged, open(tc.RoleTunnel, tc.RoleWorkload))
	_, set := s.flowspec(t)
	g := s.live(t)
	limits := everything()
	limits.Packets = &classify.Limiter{Rate: 1, Burst: 3600} // gains one a second
	set(limits)
	passed := 0
	for range 4000 {
		if verdict, _ := s.left(t, g, webIn.at, 0, frameOf(t, webIn.line)); verdict == tcxRedirect {
			passed++
		}
	}
	if passed < 3600 || passed > 3800 {
		t.Errorf("%d of 4000 passed, want 3600 and what comes again meanwhile", passed)
	}
	limits.Packets, limits.Bytes = nil, &classify.Limiter{Rate: 1, Burst: 100, Bits: true} // one packet, and the next in minutes
	set(limits)
	if verdict, _ := s.left(t, g, webIn.at, 0, frameOf(t, webIn.line)); verdict != tcxRedirect {
		t.Errorf("the first packet is returned %d for", verdict)
	}
	s.counted(t, "uplink")
	s.try(t, g, filtered(webIn, abi.ReasonFlowspecLimit))

	dscp := uint8(26)
	marks := everything()
	marks.DSCP = &dscp
	set(marks)
	for _, st := range []step{webIn, web6In, tunnelIn} {
		frame := frameOf(t, st.line)
		_, left := s.left(t, g, st.at, 0, frame)
		want := moved(frame, true)
		copy(want, left[:12])
		if st.line == web6In.line {
			binary.BigEndian.PutUint16(want[14:], binary.BigEndian.Uint16(want[14:])&0xf03f|uint16(dscp)<<6)
		} else {
			want[15] = dscp << 2
		}
		if want = fix(want); !bytes.Equal(left, want) {
			t.Errorf("%s: the frame became\n%x, want\n%x", st.line, left, want)
		}
	}
}

func TestFlowSpecAtTcShowsWhatItSamples(t *testing.T) {
	s := newSite(t, judged)
	f, set := s.flowspec(t)
	passes, drops := everything("10.0.1.10/32"), dropping(everything("fd00:1::10/128"))
	drops.Key, passes.Sample, drops.Sample = "drops", true, true
	passes.Socket = "nobody's" // tcx hands nothing over
	set(passes, drops)
	logged, stop := s.watchLogs(t)
	g := s.live(t)
	s.try(t, g, webIn)
	s.try(t, g, filtered(web6In, abi.ReasonFlowspecDrop))
	awaitTrue(t, "two samples", func() bool { return len(logged()) >= 2 })
	stop()
	var got []string
	for _, l := range logged() {
		got = append(got, fmt.Sprint(f.Key(l.Rule), " ", l.Fate, " ", l.Hook, " ", l.Ifindex, " ", l.Dst))
	}
	at := fmt.Sprint(abi.HookTcIngress, " ", index(t, "uplink").Index)
	want := []string{fmt.Sprint("everything ", abi.EventFilterPassed, " ", at, " 10.0.1.10:80"), fmt.Sprint("drops ", abi.EventFilterDropped, " ", at, " [fd00:1::10]:80")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestFlowSpecMarksWhereThereIsNoEthernet sees the packet as it leaves the hook of a TUN.
func TestFlowSpecMarksWhereThereIsNoEthernet(t *testing.T) {
	s := newSite(t)
	_, set := s.flowspec(t)
	dscp := uint8(46)
	marks := everything()
	marks.DSCP = &dscp
	set(marks)
	tun := s.openTUN(t)
	c := s.capture(t, xdp.CaptureFilter{Protocol: -1, Ifindex: index(t, "tun0").Index, Host: netip.MustParsePrefix("10.21.0.0/16")})
	bare := frameOf(t, "udp 10.21.0.9:53 > 10.0.1.10:9")[14:]
	if _, err := tun.Write(bare); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(bare)
	want[1] = dscp << 2
	fixIP(want, 0)
	if got := c.await(t, "a marked packet", func(xdp.Frame) bool { return true }); !bytes.Equal(got.Data, want) || got.Reason != abi.ReasonDefaultDrop {
		t.Errorf("%s, and it left as\n%x, want\n%x", got.Reason, got.Data, want)
	}
}

func TestExplainNamesTheFilterAtTc(t *testing.T) {
	s := newSite(t, judged)
	f, set := s.flowspec(t)
	other := dropping(everything("192.0.2.0/24"))
	other.Key = "other"
	set(other, dropping(everything("10.0.1.0/24")))
	got, err := s.Explain(t.Context(), "uplink", false, frameOf(t, webIn.line))
	if err != nil {
		t.Fatal(err)
	}
	want := tc.Explanation{Verdict: abi.FateDrop, Reason: abi.ReasonFlowspecDrop, Rule: got.Rule, Policy: -1, Ifindex: uint32(index(t, "uplink").Index)}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Error(diff)
	}
	if key := f.Key(got.Rule); key != "everything" {
		t.Errorf("the filter is %q", key)
	}
	if hits, err := f.Hits("everything"); err != nil || hits.Packets != 0 {
		t.Errorf("explaining counted %+v (%v)", hits, err)
	}
}

// BenchmarkFlowSpec gives the time of a packet on the short way into a workload, with so many filters of which it meets none, where tc judges
// policy.ingress; and of one that a filter drops there.
func BenchmarkFlowSpec(b *testing.B) {
	s := newSite(b, judged)
	_, set := s.flowspec(b)
	g := s.live(b)
	for _, st := range []step{web("S").numbered(100, 0), webReply("SA").numbered(5000, 101), web("A").numbered(101, 5001)} {
		s.try(b, g, st)
	}
	name, device := s.program(b, g, webIn.at)
	frame := frameOf(b, webIn.line+" flags=A ttl=255")
	copy(frame, device.HardwareAddr)
	measure := func(lane string) {
		best := time.Hour
		for range 1000 { // short, for other work on the machine only adds
			best = min(best, timed(b, g.Programs[name], skBuff{Ifindex: uint32(device.Index)}, frame, figureRuns))
		}
		b.ReportMetric(float64(best.Nanoseconds()), lane)
	}
	for _, n := range []int{0, 1, 100, 1000} {
		var filters []xdp.FlowSpecFilter
		for i := range n {
			one := dropping(everything(fmt.Sprintf("203.0.%d.%d/32", i>>8, i&255)))
			one.Key = fmt.Sprint(i)
			filters = append(filters, one)
		}
		set(filters...)
		measure(fmt.Sprintf("%d-miss-ns/packet", n))
		if n > 0 {
			set(append(filters[:n-1], dropping(everything("10.0.1.10/32")))...)
			measure(fmt.Sprintf("%d-hit-ns/packet", n))
		}
	}
}
