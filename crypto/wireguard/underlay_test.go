package wireguard

import (
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// tryAgain is REKEY_TIMEOUT: by itself a device waits so long after a try that did not leave the machine.
const tryAgain = 5 * time.Second

func TestAHandshakeComesAtOnceWhenTheUnderlayDoes(t *testing.T) {
	p := newPair(t)
	wire := p.a.link(t, "up0")
	if err := p.a.LinkSetDown(wire); err != nil {
		t.Fatal(err)
	}
	p.endA, p.endB = startEnd(t, p.a), startEnd(t, p.b)
	p.endA.must(request{Do: "run"})
	p.endB.converge(p.wantB)
	began := time.Now()
	p.endA.converge(p.wantA) // its first try finds no route
	s := startStream(t, p.a.dial(t, "udp", "10.20.0.1"))
	defer s.lost(0)
	if err := p.a.LinkSetUp(wire); err != nil {
		t.Fatal(err)
	}
	if err := p.a.RouteAdd(&netlink.Route{Gw: net.ParseIP("198.18.0.2")}); err != nil {
		t.Fatal(err)
	}
	s.goesOn(1)
	if took := time.Since(began); took > tryAgain {
		t.Errorf("the first answer came %s after the first try: the device may have tried again by itself", took)
	}
}

func TestALiveSessionSurvivesAnUnderlayThatComesWithAnotherAddress(t *testing.T) {
	p := newPair(t)
	p.up(t)
	p.endA.must(request{Do: "run"})
	s := startStream(t, p.a.dial(t, "udp", "10.20.0.1"))
	defer s.lost(0)
	s.goesOn(20)
	wire := p.a.link(t, "up0")
	if err := p.a.AddrDel(wire, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("198.18.0.1"), Mask: net.CIDRMask(24, 32)}}); err != nil {
		t.Fatal(err)
	}
	p.a.Address(t, "up0", "198.18.0.7/24")
	changed := time.Now()
	s.goesOn(20)
	if took := time.Since(changed); took > tryAgain {
		t.Errorf("traffic went on %s after the change", took)
	}
}
