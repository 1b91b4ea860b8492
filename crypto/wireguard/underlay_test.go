package wireguard

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// tryAgain is REKEY_TIMEOUT: by itself a device waits so long after a try that did not leave the machine.
const tryAgain = 5 * time.Second

// soonOnce repeats what a busy machine makes late: a device that is not told is never so soon.
func soonOnce(t *testing.T, what string, took func(t *testing.T) time.Duration) {
	t.Helper()
	var all []time.Duration
	for i := range 3 {
		t.Run(fmt.Sprint("try ", i+1), func(t *testing.T) { all = append(all, took(t)) })
		if t.Failed() || all[i] <= tryAgain {
			return
		}
	}
	t.Errorf("%s: took %v", what, all)
}

func TestAHandshakeComesAtOnceWhenTheUnderlayDoes(t *testing.T) {
	soonOnce(t, "the first answer after the first try: the device may have tried again by itself", underlayComes)
}

func underlayComes(t *testing.T) time.Duration {
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
	return time.Since(began)
}

func TestALiveSessionSurvivesAnUnderlayThatComesWithAnotherAddress(t *testing.T) {
	soonOnce(t, "traffic goes on after the change", underlayChanges)
}

func underlayChanges(t *testing.T) time.Duration {
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
	return time.Since(changed)
}
