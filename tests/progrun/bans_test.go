package progrun_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// booted is CLOCK_BOOTTIME.
func booted(t testing.TB) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

func (s *site) bans(t testing.TB) *xdp.Bans {
	t.Helper()
	b, err := xdp.OpenBans(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func set(t testing.TB, b *xdp.Bans, prefix string, until time.Duration) {
	t.Helper()
	if err := b.Set(netip.MustParsePrefix(prefix), until); err != nil {
		t.Fatal(err)
	}
}

func lift(t testing.TB, b *xdp.Bans, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		if err := b.Remove(netip.MustParsePrefix(p)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBansStandBehindFailsafeAndSystemAndBeforeRulesAndFlows(t *testing.T) {
	s := newSite(t, strict())
	b := s.bans(t)
	client := netip.MustParseAddr(outside)
	putFlow(t, s.openMap(t, "fresh-out", 3), key(dst4, client, 40000, 53, 17), time.Second, abi.FlowNew)
	https, reply := from4(outside, frame4(6, tcp(1, 443))), from4(outside, frame4(17, udp(53, 40000)))
	dropped := frame4(17, udp(1, 2))
	https6 := ether(typeIP6, ip6(6, 64, ll6, tcp(1, 443)))
	solicitation := ether(typeIP6, ip6(58, 255, ll6, icmp(135, 0, 0, make([]byte, 16)...)))
	quoted := to4(outside, from4(dst4.String(), frame4(17, udp(40000, 53))))[14:]
	unreachable := from4(outside, frame4(1, icmp(3, 3, 0, quoted...)))

	s.check(t, "a reply", reply, abi.ReasonEstablished)
	for _, p := range []string{outside + "/32", "192.0.2.0/24", "fe80::/16"} {
		set(t, b, p, 0)
	}
	s.check(t, "an accept rule does not save a banned source", https, abi.ReasonBanned)
	s.check(t, "nor does a flow", reply, abi.ReasonBanned)
	s.check(t, "the ban is told before the drop rule", dropped, abi.ReasonBanned)
	s.check(t, "over IPv6", https6, abi.ReasonBanned)
	s.check(t, "management: lets in a banned source", frame4(6, tcp(1, 22)), abi.ReasonFailsafe)
	s.check(t, "but not to a workload", to4("203.0.113.10", frame4(6, tcp(1, 22))), abi.ReasonBanned)
	s.check(t, "so does the session with a neighbor", ttl4(255, frame4(6, tcp(1, 179))), abi.ReasonSystem)
	s.check(t, "so do errors about our own flows", unreachable, abi.ReasonICMPError)
	s.check(t, "so does neighbour discovery", solicitation, abi.ReasonLinkControl)
	lift(t, b, outside+"/32", "192.0.2.0/24", "fe80::/16")
	if got := run(t, s.live, s.uplink, https); got != xdpPass {
		t.Errorf("once it is lifted the verdict is %d", got)
	}
	s.last = s.tally(t)
	s.check(t, "and its flows go on", reply, abi.ReasonEstablished)
}

// TestPrefixesOfBans: every length covers what it should and no more, in both families.
func TestPrefixesOfBans(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	b := s.bans(t)
	for _, family := range []struct {
		addr  netip.Addr
		frame func(netip.Addr) []byte
	}{
		{netip.MustParseAddr("198.51.100.167"), func(a netip.Addr) []byte { return from4(a.String(), frame4(17, udp(1, 2))) }},
		{netip.MustParseAddr("2001:db8:a5a5:5a5a:a5a5:5a5a:a5a5:5a5a"), func(a netip.Addr) []byte { return ether(typeIP6, ip6(17, 64, a, udp(1, 2))) }},
	} {
		for bits := 1; bits <= family.addr.BitLen(); bits++ {
			p, err := family.addr.Prefix(bits)
			if err != nil {
				t.Fatal(err)
			}
			set(t, b, p.String(), 0)
			// The neighbour differs in the last bit of the prefix alone.
			other := family.addr.AsSlice()
			other[(bits-1)/8] ^= 0x80 >> ((bits - 1) % 8)
			neighbour, _ := netip.AddrFromSlice(other)
			s.check(t, "inside "+p.String(), family.frame(family.addr), abi.ReasonBanned)
			s.check(t, "beside "+p.String(), family.frame(neighbour), abi.ReasonDefaultAccept)
			lift(t, b, p.String())
		}
		s.check(t, "without bans", family.frame(family.addr), abi.ReasonDefaultAccept)
	}
}

// untilItEnds makes what ends soon, sees that a frame meets it, and waits for its end. Where the machine took longer than that for
// a look, it begins anew.
func (s *site) untilItEnds(t *testing.T, put func(ends time.Duration), frame []byte, met abi.Reason) {
	t.Helper()
	for range 10 {
		ends := booted(t) + 2*time.Second
		put(ends)
		wrong := s.tried(t, frame, met)
		if booted(t) >= ends {
			continue
		}
		for _, w := range wrong {
			t.Errorf("before its end: %s", w)
		}
		for booted(t) < ends {
			time.Sleep(10 * time.Millisecond)
		}
		return
	}
	t.Fatal("in ten tries it was never looked at before its end")
}

func TestABanEndsInTheProgramAndAnEndedOneHidesNoOther(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	b := s.bans(t)
	frame, hour := frame4(17, udp(1, 2)), time.Hour
	frame6 := ether(typeIP6, ip6(17, 64, src6, udp(1, 2)))
	s.twin(t) // now: a ban is about to end
	s.untilItEnds(t, func(ends time.Duration) { set(t, b, "192.0.2.7/32", ends) }, frame, abi.ReasonBanned)
	s.check(t, "after it, with no one to sweep", frame, abi.ReasonDefaultAccept)

	// A longest-prefix map shows the longest alone, ended or not.
	const past = time.Nanosecond // since the boot: the machine may have been up for less than any other time
	for bits := 31; bits > 8; bits-- {
		p, _ := src4.Prefix(bits)
		set(t, b, p.String(), past)
	}
	for bits := 127; bits > 16; bits-- {
		p, _ := src6.Prefix(bits)
		set(t, b, p.String(), past)
	}
	s.check(t, "all have ended", frame, abi.ReasonDefaultAccept)
	s.check(t, "all have ended over IPv6", frame6, abi.ReasonDefaultAccept)
	set(t, b, "192.0.0.0/8", booted(t)+hour)
	set(t, b, "2001::/16", booted(t)+hour)
	s.check(t, "the shortest holds", frame, abi.ReasonBanned)
	s.check(t, "the shortest holds over IPv6", frame6, abi.ReasonBanned)
	if hits, err := b.Hits(netip.MustParsePrefix("192.0.0.0/8")); err != nil || hits.Packets != 1 {
		t.Errorf("it counts %+v (%v), want its packet", hits, err)
	}
	if hits, err := b.Hits(netip.MustParsePrefix("192.0.2.7/32")); err != nil || hits.Packets != 1 {
		t.Errorf("the first counts %+v (%v), want the one before its end", hits, err)
	}
}

func TestCountersOfBansAreTheirOwn(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	b := s.bans(t)
	set(t, b, "192.0.2.7/32", 0)
	set(t, b, "192.0.2.0/24", 0)
	begin := booted(t)
	for range 3 {
		run(t, s.live, s.uplink, frame4(17, udp(1, 2)))
	}
	run(t, s.live, s.uplink, from4("192.0.2.8", frame4(17, udp(1, 2))))
	s.explain(t, s.uplink, frame4(17, udp(1, 2)))
	want := func(prefix string, packets uint64) {
		t.Helper()
		hits, err := b.Hits(netip.MustParsePrefix(prefix))
		if err != nil || hits.Packets != packets || packets > 0 && (hits.Last < begin || hits.Last > booted(t)) {
			t.Errorf("%s counts %+v (%v), want %d packets", prefix, hits, err, packets)
		}
	}
	want("192.0.2.7/32", 3)
	want("192.0.2.0/24", 1)
	set(t, b, "192.0.2.7/32", booted(t)+time.Hour)
	want("192.0.2.7/32", 3) // banned again, it counts on
	lift(t, b, "192.0.2.7/32")
	set(t, b, "198.51.100.1/32", 0) // which gets the counter that is free now
	want("198.51.100.1/32", 0)
}

func TestBansOutliveTheirTableAndEveryGeneration(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	b := s.bans(t)
	if b.Loaded() {
		t.Error("a new table says that it is filled")
	}
	until := booted(t) + time.Hour
	prefixes := []string{"192.0.2.7/32", "192.0.2.0/24", "2001:db8::7/128", "2001:db8::/32"}
	for _, p := range prefixes {
		set(t, b, p, until)
	}
	if err := errors.Join(b.SetLoaded(), b.Close()); err != nil {
		t.Fatal(err)
	}
	s.load(t, generation(classify.Accept, classify.Rule{ID: 1, Protocol: classify.AnyProtocol, Action: classify.Accept}))
	s.last = s.tally(t)
	s.check(t, "in the next generation", frame4(17, udp(1, 2)), abi.ReasonBanned)
	again := s.bans(t)
	all := again.All()
	for _, p := range prefixes {
		if all[netip.MustParsePrefix(p)] != until {
			t.Errorf("%s is banned until %v", p, all[netip.MustParsePrefix(p)])
		}
	}
	if len(all) != len(prefixes) || !again.Loaded() {
		t.Errorf("%v, loaded %v", all, again.Loaded())
	}
	lift(t, again, prefixes...)
	if got := run(t, s.live, s.uplink, frame4(17, udp(1, 2))); got != xdpPass {
		t.Errorf("lifted by another process, the verdict is %d", got)
	}
	if hits, err := again.Hits(netip.MustParsePrefix(prefixes[0])); err != nil || hits != (xdp.BanHits{}) {
		t.Errorf("a ban that is not there counts %v (%v)", hits, err)
	}
}

// TestTheTableOfBansIsFullAtItsLimit also shows that a full one still judges, and takes new ends.
func TestTheTableOfBansIsFullAtItsLimit(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	b := s.bans(t)
	for i := range abi.MaxBans {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		if err := b.Set(p, 0); err != nil {
			t.Fatalf("ban %d: %v", i, err)
		}
	}
	if err := b.Set(netip.MustParsePrefix("192.0.2.7/32"), 0); !errors.Is(err, xdp.ErrBansFull) {
		t.Errorf("one more: %v", err)
	}
	s.check(t, "what found no room", frame4(17, udp(1, 2)), abi.ReasonDefaultAccept)
	set(t, b, "10.0.0.1/32", booted(t)+time.Hour)
	s.check(t, "the last", from4("10.1.134.159", frame4(17, udp(1, 2))), abi.ReasonBanned)
	lift(t, b, "10.0.0.0/32")
	set(t, b, "192.0.2.0/24", 0)
	s.check(t, "in the room of another", frame4(17, udp(1, 2)), abi.ReasonBanned)
}

// BenchmarkBans gives the time of one packet in the generation with so many bans, of which none is met, and of one that
// is dropped.
func BenchmarkBans(b *testing.B) {
	s := newSite(b, generation(classify.Accept))
	bans := s.bans(b)
	free, banned := from4(outside, frame4(17, udp(1, 2))), frame4(17, udp(1, 2))
	measure := func(name string, frame []byte) { s.fastest(b, name+"-ns/packet", frame) }
	measure("none", free)
	set(b, bans, "192.0.2.7/32", 0)
	measure("1-miss", free)
	measure("1-hit", banned)
	set(b, bans, "10.0.0.0/24", 0)
	measure("1-and-1-prefix-miss", free)
	lift(b, bans, "10.0.0.0/24")
	begin := time.Now()
	for i := range 99_999 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		set(b, bans, p.String(), 0)
	}
	b.ReportMetric(float64(time.Since(begin).Microseconds())/99_999, "us/ban")
	measure("100k-miss", free)
	measure("100k-hit", banned)
	for i := range 50_000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		lift(b, bans, p.String())
	}
	for i := range 50_000 {
		set(b, bans, fmt.Sprintf("11.%d.%d.0/24", i>>8, i&255), 0)
	}
	measure("50k-and-50k-prefixes-miss", free)
	b.ReportMetric(float64(walked(b, s.live)), "verifier-insns")
}

// TestBansHoldOnWhereThePinsWereRemoved: what is loaded next looks into the table that is held, and into no new one.
func TestBansHoldOnWhereThePinsWereRemoved(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	b := s.bans(t)
	f := s.flowspec(t)
	one, other := from4(outside, frame4(17, udp(1, 2))), frame4(17, udp(1, 2))
	set(t, b, outside+"/32", 0)
	for _, room := range []string{"gen", "links", "maps", "slots"} {
		if err := os.RemoveAll(filepath.Join(s.dir, room)); err != nil {
			t.Fatal(err)
		}
	}
	if others := s.bans(t); len(others.All()) > 0 { // which take the place of those
		t.Fatal("the pins were not removed")
	}
	if err := errors.Join(b.Repin(), f.Repin(), b.Repin()); err != nil {
		t.Fatal(err)
	}
	s.load(t, s.loaded)
	if got := run(t, s.live, s.uplink, one); got != xdpDrop {
		t.Errorf("a ban of before: verdict %d", got)
	}
	lift(t, b, outside+"/32")
	set(t, b, "192.0.2.0/24", 0)
	if got := []uint32{run(t, s.live, s.uplink, one), run(t, s.live, s.uplink, other)}; got[0] != xdpPass || got[1] != xdpDrop {
		t.Errorf("once it is lifted and another holds: verdicts %v", got)
	}
	apply(t, f, matching("all"))
	if got := run(t, s.live, s.uplink, one); got != xdpDrop {
		t.Errorf("a filter: verdict %d", got)
	}
}
