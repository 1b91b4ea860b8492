package netns

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/cmd/lab"
)

// hops are what traceroute has to show on a way, the server left out: before and at the gateway, and behind it. Where the
// link has no address of its own kind (IPv6 toward a workload) the gateway answers from another of its addresses.
type hops struct {
	before  []string // routers in front of the gateway
	gateway []string // any of these is the gateway
	behind  []string
}

func (p *pathSite) hopsOf(w way, server netip.Addr) hops {
	var h hops
	six := server.Is6()
	pick := func(four, ipv6 string) string {
		if six {
			return ipv6
		}
		return four
	}
	switch w.from {
	case p.Client:
		h.before = []string{pick("198.51.100.1", "2001:db8:c::1")}
		h.gateway = []string{pick("198.18.0.2", "2001:db8::2")}
	case p.lan:
		h.gateway = []string{pick("198.18.4.1", "2001:db8:4::1")}
	default:
		h.gateway = []string{pick("169.254.1.1", "2001:db8::2"), "2001:db8:4::1", "fe80::1"}
	}
	if w.to == p.Client {
		h.behind = []string{pick("198.18.0.1", "2001:db8::1")}
	}
	return h
}

func TestTracerouteShowsTheGatewayAsAHopAndTheTTLFallsByOne(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{tunnel: true})
	for _, w := range p.ways() {
		for _, server := range w.servers() {
			h := p.hopsOf(w, server)
			before := len(h.before)
			p.redirects(w.name+", the last TTL that arrives", func() {
				if err := p.reaches(w.from, server, "-t", fmt.Sprint(before+len(h.behind)+2)); err != nil {
					t.Error(err)
				}
			}, w.want, w.may...)
			ttl := "tc " + w.ingress + " stack-ttl"
			p.redirects(w.name+", TTL spent at the gateway", func() {
				r := p.in(w.from, "ping", "-n", "-c1", "-W2", "-t", fmt.Sprint(before+1), server.String())
				if said := strings.ToLower(r.out); !strings.Contains(said, "time to live exceeded") && !strings.Contains(said, "hop limit") ||
					!containsAny(r.out, h.gateway) {
					t.Errorf("%s to %s: %s", w.name, server, r.out)
				}
			}, []string{ttl}, ttl)
			for _, kind := range [][]string{{}, {"-I"}, {"-T", "-p80"}} { // the first is UDP to ports from 33434 on
				p.traces(w, server, kind, h)
			}
		}
	}
}

// traces compares what traceroute prints, one probe a hop.
func (p *pathSite) traces(w way, server netip.Addr, kind []string, h hops) {
	p.t.Helper()
	r := p.in(w.from, "traceroute", append([]string{"-n", "-q1", "-w2", "-m8", server.String()}, kind...)...)
	if r.code != 0 {
		p.t.Errorf("traceroute %s to %s (package traceroute): %s%s", kind, server, r.out, r.err)
		return
	}
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(r.out), "\n")[1:] {
		got = append(got, strings.Fields(line)[1])
	}
	want := append(append(append([]string(nil), h.before...), "gateway"), append(h.behind, server.String())...)
	for i, hop := range got {
		if i == len(h.before) && containsAny(hop, h.gateway) {
			got[i] = "gateway"
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		p.t.Errorf("%s: traceroute %s to %s: %q, want %q", w.name, kind, server, got, want)
	}
}

func containsAny(text string, words []string) bool {
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// TestTheEchoedTTLIsThatOfTwoRouters: the gateway takes one from replies as well, neither none nor two.
func TestTheEchoedTTLIsThatOfTwoRouters(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	for _, w := range p.ways() {
		routers := 1
		if w.from == p.Client || w.to == p.Client {
			routers++
		}
		for _, server := range w.servers() {
			out := p.must(w.from, "ping -n -c1 -W2 "+server.String())
			if want := fmt.Sprintf("ttl=%d ", 64-routers); !strings.Contains(out, want) {
				t.Errorf("%s: no %q in the echo of %s: %s", w.name, want, server, out)
			}
		}
	}
}

// webOne is both addresses of the first workload.
var webOne = []netip.Addr{lab.Web4[0], lab.Web6[0]}
