package progrun_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
	"sluice/xdp/packet"
)

func (s *site) flowspec(t testing.TB) *xdp.FlowSpec {
	t.Helper()
	f, err := xdp.OpenFlowSpec(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func apply(t testing.TB, f *xdp.FlowSpec, filters ...xdp.FlowSpecFilter) {
	t.Helper()
	if err := f.Set(filters); err != nil {
		t.Fatal(err)
	}
}

// matching is a filter that drops what one rule says.
func matching(key string, change ...func(*classify.Rule)) xdp.FlowSpecFilter {
	r := classify.Rule{Protocol: classify.AnyProtocol}
	for _, f := range change {
		f(&r)
	}
	return xdp.FlowSpecFilter{Key: key, Rules: []classify.Rule{r}, Drop: true}
}

func toward(texts ...string) func(*classify.Rule) {
	return func(r *classify.Rule) { r.To = prefixes(texts...) }
}

func TestFlowSpecStandsBehindFailsafeSystemAndBansAndBeforeRulesAndFlows(t *testing.T) {
	s := newSite(t, strict())
	f := s.flowspec(t)
	client := netip.MustParseAddr(outside)
	putFlow(t, s.openMap(t, "fresh-out", 3), key(dst4, client, 40000, 53, 17), time.Second, abi.FlowNew)
	https, reply := from4(outside, frame4(6, tcp(1, 443))), from4(outside, frame4(17, udp(53, 40000)))
	https6 := ether(typeIP6, ip6(6, 64, ll6, tcp(1, 443)))
	solicitation := ether(typeIP6, ip6(58, 255, ll6, icmp(135, 0, 0, make([]byte, 16)...)))

	s.check(t, "a reply", reply, abi.ReasonEstablished)
	apply(t, f, matching("everything"))
	s.check(t, "an accept rule does not save what a filter drops", https, abi.ReasonFlowspecDrop)
	s.check(t, "nor does a flow", reply, abi.ReasonFlowspecDrop)
	s.check(t, "over IPv6", https6, abi.ReasonFlowspecDrop)
	s.check(t, "management: is not filtered", frame4(6, tcp(1, 22)), abi.ReasonFailsafe)
	s.check(t, "nor is the session with a neighbor", ttl4(255, frame4(6, tcp(1, 179))), abi.ReasonSystem)
	s.check(t, "nor is neighbour discovery", solicitation, abi.ReasonLinkControl)
	b := s.bans(t)
	set(t, b, outside+"/32", 0)
	s.check(t, "the ban is told before the filter", https, abi.ReasonBanned)
	lift(t, b, outside+"/32")
	apply(t, f)
	s.check(t, "and when they are withdrawn its flows go on", reply, abi.ReasonEstablished)
}

// TestPrefixesOfFlowSpec: every length of both sides covers what it should and no more, in both families.
func TestPrefixesOfFlowSpec(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	f := s.flowspec(t)
	for _, family := range []struct {
		addr  netip.Addr
		frame func(netip.Addr) []byte
	}{
		{netip.MustParseAddr("198.51.100.167"), func(a netip.Addr) []byte { return from4(a.String(), frame4(17, udp(1, 2))) }},
		{netip.MustParseAddr("2001:db8:a5a5:5a5a:a5a5:5a5a:a5a5:5a5a"), func(a netip.Addr) []byte { return ether(typeIP6, ip6(17, 64, a, udp(1, 2))) }},
	} {
		// All lengths at once: a longer one must not hide what a shorter one says.
		for _, bits := range []int{0, 1, 7, 8, 9, 15, 23, 24, 31, 32, 33, 64, 127, 128} {
			if bits > family.addr.BitLen() {
				continue
			}
			p := netip.PrefixFrom(family.addr, bits).Masked()
			apply(t, f, matching("a longer one, of another protocol", func(r *classify.Rule) {
				r.Protocol, r.From = 6, []netip.Prefix{netip.PrefixFrom(family.addr, family.addr.BitLen())}
			}), matching(p.String(), func(r *classify.Rule) { r.From = []netip.Prefix{p} }))
			s.check(t, "inside "+p.String(), family.frame(family.addr), abi.ReasonFlowspecDrop)
			if bits == 0 {
				continue
			}
			other := family.addr.AsSlice() // differs in the last bit of the prefix alone
			other[(bits-1)/8] ^= 0x80 >> ((bits - 1) % 8)
			neighbour, _ := netip.AddrFromSlice(other)
			s.check(t, "beside "+p.String(), family.frame(neighbour), abi.ReasonDefaultAccept)
		}
	}
}

// TestFlowSpecAgreesWithTheReferenceModel: lists of filters over every condition that rules have, in order. SLUICE_SEED is another seed.
func TestFlowSpecAgreesWithTheReferenceModel(t *testing.T) {
	seed := uint64(1)
	if text := os.Getenv("SLUICE_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("SLUICE_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	s := newSite(t, generation(classify.Accept))
	f := s.flowspec(t)
	for round := range 30 {
		policies := classifytest.Policies(rng)
		list := classifytest.Packets(rng, policies[:1], 400)
		classifytest.On(policies, s.uplink, s.uplink+1000)
		var filters []xdp.FlowSpecFilter
		var judges []classify.Policy
		for i, r := range policies[0].Rules {
			r.NotFrom, r.NotTo, r.Shadow, r.Action = nil, nil, false, classify.Drop // what no filter says
			filters = append(filters, xdp.FlowSpecFilter{Key: fmt.Sprint(round, ".", i), Rules: []classify.Rule{r}, Drop: rng.IntN(2) == 0, GoesOn: rng.IntN(3) == 0})
			judges = append(judges, classify.Policy{Rules: []classify.Rule{r}, Default: classify.Continue})
		}
		if err := f.Set(filters); errors.Is(err, xdp.ErrFlowSpecFull) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		want := map[string]uint64{}
		for _, p := range list {
			p.Ifindex = uint32(s.uplink)
			reason := abi.ReasonDefaultAccept
			for i, judge := range judges {
				if d := classify.Judge(judge, p); d.Action != classify.Drop || d.Reason != classify.ByRule {
					continue
				}
				want[filters[i].Key]++
				if filters[i].Drop {
					reason = abi.ReasonFlowspecDrop
				}
				if filters[i].Drop || !filters[i].GoesOn {
					break
				}
			}
			s.check(t, fmt.Sprintf("%+v", p), frameOf(t, p), reason)
		}
		for _, filter := range filters {
			if hits, err := f.Hits(filter.Key); err != nil || hits.Packets != want[filter.Key] {
				t.Errorf("filter %s counts %+v (%v), want %d", filter.Key, hits, err, want[filter.Key])
			}
		}
		if t.Failed() {
			return
		}
	}
}

func TestAFilterEndsInTheProgram(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	f := s.flowspec(t)
	s.twin(t)
	s.untilItEnds(t, func(ends time.Duration) {
		filter := matching("ends")
		filter.Until = ends
		apply(t, f, filter)
	}, frame4(17, udp(1, 2)), abi.ReasonFlowspecDrop)
	s.check(t, "after it, with no one to sweep", frame4(17, udp(1, 2)), abi.ReasonDefaultAccept)
}

func TestAFilterLimitsPacketsAndBytes(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	f := s.flowspec(t)
	s.twin(t)
	frame := append(frame4(17, udp(1, 2)), make([]byte, 1400)...) // a bucket of bytes gains one in ten seconds
	packets := xdp.FlowSpecFilter{Key: "packets", Rules: []classify.Rule{{Protocol: classify.AnyProtocol}}, Packets: &classify.Limiter{Rate: 1, Burst: 3600}}
	bytes := xdp.FlowSpecFilter{Key: "bytes", Rules: []classify.Rule{{Protocol: classify.AnyProtocol}},
		Bytes: &classify.Limiter{Rate: classify.MinBitRate, Burst: uint64(5 * len(frame)), Bits: true}}
	count := func() (passed int) {
		for range 4000 {
			if run(t, s.live, s.uplink, frame) == xdpPass {
				passed++
			}
		}
		return passed
	}
	// The bucket is full at first, and gains one a second: who finds 10 more has had ten seconds.
	for _, c := range []struct {
		filter xdp.FlowSpecFilter
		least  int
	}{{packets, 3600}, {bytes, 5}} {
		apply(t, f, c.filter)
		passed := count()
		hits, err := f.Hits(c.filter.Key)
		if err != nil || hits.Packets != 4000 || hits.Dropped != uint64(4000-passed) || hits.Bytes != uint64(4000*len(frame)) {
			t.Errorf("%s: %d passed, and it counts %+v, %v", c.filter.Key, passed, hits, err)
		}
		if passed < c.least || passed > c.least+200 {
			t.Errorf("%s: %d of 4000 passed, want %d and what comes again meanwhile", c.filter.Key, passed, c.least)
		}
	}
	s.last = s.tally(t)
	s.check(t, "now", frame, abi.ReasonFlowspecLimit)
}

func TestAFilterMarksThePacket(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	f := s.flowspec(t)
	dscp := uint8(26)
	filter := matching("marks")
	filter.Drop, filter.DSCP = false, &dscp
	apply(t, f, filter)
	for _, line := range []string{"udp 192.0.2.7:1 > 203.0.113.9:53", "tcp 192.0.2.7:1 > 203.0.113.9:443 dscp=46", "udp [2001:db8::7]:1 > [2001:db8::9]:53 dscp=10"} {
		spec, err := packet.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		frame, err := spec.Frame()
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(frame)
		if want[12] == 0x08 {
			want[15] = want[15]&3 | dscp<<2
			binary.BigEndian.PutUint16(want[24:], 0)
			binary.BigEndian.PutUint16(want[24:], internetChecksum(want[14:34]))
		} else {
			binary.BigEndian.PutUint16(want[14:], binary.BigEndian.Uint16(want[14:])&0xf03f|uint16(dscp)<<6)
		}
		opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)), Context: xdpMD{DataEnd: uint32(len(frame)), IngressIfindex: uint32(s.uplink)}}
		if verdict, err := s.live.Run(opts); err != nil || verdict != xdpPass {
			t.Errorf("%s: verdict %d, %v", line, verdict, err)
		}
		if !slices.Equal(opts.DataOut, want) {
			t.Errorf("%s: the frame became\n%x, want\n%x", line, opts.DataOut, want)
		}
	}
}

func TestAFilterShowsWhatItSamples(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	f := s.flowspec(t)
	passes, drops := matching("passes", toward("203.0.113.9/32")), matching("drops", toward("203.0.113.10/32"))
	passes.Drop, passes.Sample, drops.Sample = false, true, true
	apply(t, f, passes, drops, matching("silent", toward("203.0.113.11/32")))
	run(t, s.live, s.uplink, frame4(17, udp(1, 2))) // nobody listens yet
	h, stop := s.watchSamples(t, xdp.WatchLogs, 1_000_000)
	frames := map[string][]byte{"silent": to4("203.0.113.11", frame4(17, udp(1, 2))), "passes": to4("203.0.113.9", frame4(17, udp(1, 2))),
		"drops": to4("203.0.113.10", frame4(17, udp(1, 2)))}
	for _, key := range []string{"silent", "passes", "drops"} {
		s.explain(t, s.uplink, frames[key])
		run(t, s.live, s.uplink, frames[key])
	}
	h.await(t, "two samples", func() bool { return len(h.drops) >= 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	var got []string
	for _, sample := range h.drops {
		got = append(got, fmt.Sprint(f.Key(sample.Rule), " ", sample.Fate, " ", sample.Dst.Addr(), " ", sample.Hook))
	}
	want := []string{fmt.Sprint("passes ", abi.EventFilterPassed, " 203.0.113.9 ", abi.HookXdp), fmt.Sprint("drops ", abi.EventFilterDropped, " 203.0.113.10 ", abi.HookXdp)}
	if !slices.Equal(got, want) {
		t.Errorf("sampled %q, want %q", got, want)
	}
}

func internetChecksum(b []byte) uint16 { // RFC 1071
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func TestFiltersKeepTheirCountersAndOutliveTheirTable(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	f := s.flowspec(t)
	web := matching("web", func(r *classify.Rule) { r.Protocol, r.Ports = 6, []classify.PortRange{{First: 80, Last: 443}} })
	dns := matching("dns", func(r *classify.Rule) { r.Protocol, r.SourcePorts = 17, []classify.PortRange{{First: 53, Last: 53}} })
	apply(t, f, web)
	for range 3 {
		run(t, s.live, s.uplink, frame4(6, tcp(1, 443)))
	}
	apply(t, f, dns, web) // which has another number now
	run(t, s.live, s.uplink, frame4(6, tcp(1, 80)))
	run(t, s.live, s.uplink, frame4(17, udp(53, 2)))
	want := func(f *xdp.FlowSpec, key string, packets uint64) {
		t.Helper()
		if hits, err := f.Hits(key); err != nil || hits.Packets != packets || hits.Dropped != packets || hits.Bytes == 0 && packets > 0 {
			t.Errorf("%s counts %+v (%v), want %d packets", key, hits, err, packets)
		}
	}
	want(f, "web", 4)
	want(f, "dns", 1)
	if slot := s.explain(t, s.uplink, frame4(17, udp(53, 2))).Rule; f.Key(slot) != "dns" {
		t.Errorf("explain names the filter %d, %q", slot, f.Key(slot))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s.load(t, generation(classify.Accept, classify.Rule{ID: 1, Protocol: classify.AnyProtocol, Action: classify.Accept}))
	s.last = s.tally(t)
	s.check(t, "without a daemon, in the next generation", frame4(6, tcp(1, 443)), abi.ReasonFlowspecDrop)
	again := s.flowspec(t)
	apply(t, again, web)
	want(again, "web", 5)
	want(again, "dns", 0)
	s.check(t, "what was withdrawn", frame4(17, udp(53, 2)), abi.ReasonRuleAccept)
	apply(t, again, web, matching("another", toward("203.0.113.0/24")))
	want(again, "another", 0)
}

// TestFlowSpecIsFullAtItsLimit also shows that what was live stays, and that a full one judges.
func TestFlowSpecIsFullAtItsLimit(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	f := s.flowspec(t)
	var filters []xdp.FlowSpecFilter
	for i := range abi.MaxFlowspec {
		filters = append(filters, matching(fmt.Sprint(i), toward(fmt.Sprintf("203.0.%d.%d/32", i>>8, i&255))))
	}
	apply(t, f, filters...)
	for _, n := range []int{0, 63, 64, 1000, abi.MaxFlowspec - 1} {
		s.check(t, fmt.Sprint("filter ", n), to4(fmt.Sprintf("203.0.%d.%d", n>>8, n&255), frame4(17, udp(1, 2))), abi.ReasonFlowspecDrop)
	}
	if err := f.Set(append(filters, matching("one more"))); !errors.Is(err, xdp.ErrFlowSpecFull) {
		t.Errorf("one more: %v", err)
	}
	s.check(t, "what found no room", to4("198.51.100.1", frame4(17, udp(1, 2))), abi.ReasonDefaultAccept)
	s.check(t, "what was live", to4("203.0.0.0", frame4(17, udp(1, 2))), abi.ReasonFlowspecDrop)
	many := matching("many", func(r *classify.Rule) {
		for i := range uint16(abi.MaxFlowspec + 1) {
			r.Ports = append(r.Ports, classify.PortRange{First: 2 * i, Last: 2 * i})
		}
	})
	if err := f.Set([]xdp.FlowSpecFilter{many}); !errors.Is(err, xdp.ErrFlowSpecFull) {
		t.Errorf("a filter of too many entries: %v", err)
	}
}

// BenchmarkFlowSpec gives the time of one packet with so many filters, of which none is met, and of one that is dropped.
func BenchmarkFlowSpec(b *testing.B) {
	s := newSite(b, generation(classify.Accept))
	f := s.flowspec(b)
	free, hit := frame4(17, udp(1, 2)), to4("203.0.0.0", frame4(17, udp(1, 2)))
	s.fastest(b, "none-ns/packet", free)
	for _, n := range []int{1, 100, 1000} {
		var filters []xdp.FlowSpecFilter
		for i := range n {
			filters = append(filters, matching(fmt.Sprint(i), toward(fmt.Sprintf("203.0.%d.%d/32", i>>8, i&255))))
		}
		begin := time.Now()
		apply(b, f, filters...)
		b.ReportMetric(float64(time.Since(begin).Microseconds())/1000, fmt.Sprintf("%d-ms/set", n))
		s.fastest(b, fmt.Sprintf("%d-miss-ns/packet", n), free)
		s.fastest(b, fmt.Sprintf("%d-hit-ns/packet", n), hit)
	}
	b.ReportMetric(float64(walked(b, s.live)), "verifier-insns")
}
