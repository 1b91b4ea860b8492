package wireguard

import (
	"net/netip"
	"strings"
	"testing"

	"sluice/crypto/wireguard/child"
)

func TestTheProcessProbesByItselfAndNothingOfItIsAtTheTUN(t *testing.T) {
	p := newPair(t)
	p.up(t)
	p.a.answers(t, "fd00:20::1", marker)
	packets := func() uint64 {
		s := p.a.link(t, "fra1").Attrs().Statistics
		return s.RxPackets + s.TxPackets
	}
	list := []child.Probe{
		{To: netip.MustParseAddr("10.20.0.1"), Tag: 1}, {To: netip.MustParseAddr("fd00:20::1"), Tag: 2<<32 | 7}, {To: netip.MustParseAddr("10.200.0.1"), Tag: 3 << 60},
	}
	until(t, "no packet is at the TUN while it probes", func() bool { // but one of the kernel's own, now and then: it solicits routers
		before := packets()
		a := p.endA.must(request{Do: "probe", Probes: list})
		if !a.Probes || len(a.Probed) != len(list) {
			t.Fatalf("%+v", a)
		}
		for i, got := range a.Probed {
			if got.Tag != list[i].Tag || got.Why != "" || got.Age < 0 {
				t.Errorf("%s: %+v", list[i].To, got)
			}
		}
		return packets() == before
	})

	// The next daemon hears its own answers from the same process.
	p.endA.kill()
	p.endA = startEnd(t, p.a)
	p.endA.observe()
	if a := p.endA.must(request{Do: "probe", Probes: list}); !a.Probes || len(a.Probed) != len(list) {
		t.Errorf("after a restart: %+v", a)
	}

	// Without an address of its own, and without a route, there is no source.
	if _, err := p.a.run(t, "ip", "-6", "route", "flush", "dev", "fra1"); err != nil {
		t.Fatal(err)
	}
	a := p.endA.must(request{Do: "probe", Probes: list[1:2]})
	if len(a.Probed) != 1 || !strings.Contains(a.Probed[0].Why, "unreachable") {
		t.Errorf("without a route: %+v", a)
	}

	p.endA.must(request{Do: "down"})
	if a := p.endA.must(request{Do: "probe", Probes: list}); a.Probes {
		t.Errorf("a tunnel that is not there probes: %+v", a)
	}
}
