package netns

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/cmd/lab"
)

// smallMTU is that of the one narrow link; IPv6 needs 1280.
const smallMTU = 1300

// narrow is a place where the path is narrower than its ends know.
type narrow struct {
	name  string
	links func(*pathSite) // sets smallMTU
	ways  []string        // of those that pass there and find out from a router
	hop   string          // who tells: the gateway or the tor
}

var narrows = []narrow{
	{"at the workload", func(p *pathSite) {
		p.must(p.Gateway.Namespace, fmt.Sprint("ip link set web-1 mtu ", smallMTU))
		p.must(p.Workload(1), fmt.Sprint("ip link set eth0 mtu ", smallMTU))
	}, []string{"uplink to workload"}, "gateway"},
	{"at the uplink", func(p *pathSite) {
		p.must(p.Gateway.Namespace, fmt.Sprint("ip link set eth0 mtu ", smallMTU))
		p.must(p.ToR, fmt.Sprint("ip link set gateway mtu ", smallMTU))
	}, []string{"workload to uplink"}, "gateway"},
	{"behind the ToR", func(p *pathSite) {
		p.must(p.ToR, fmt.Sprint("ip link set client mtu ", smallMTU))
		p.must(p.Client, fmt.Sprint("ip link set eth0 mtu ", smallMTU))
	}, []string{"workload to uplink"}, "tor"},
	{"at the LAN", func(p *pathSite) {
		p.must(p.Gateway.Namespace, fmt.Sprint("ip link set lan0 mtu ", smallMTU))
		p.must(p.lan, fmt.Sprint("ip link set lan mtu ", smallMTU))
	}, []string{"workload to LAN"}, "gateway"},
	{"between workloads", func(p *pathSite) {
		p.must(p.Gateway.Namespace, fmt.Sprint("ip link set web-2 mtu ", smallMTU))
		p.must(p.Workload(2), fmt.Sprint("ip link set eth0 mtu ", smallMTU))
	}, []string{"workload to workload", "LAN to workload"}, "gateway"},
}

func TestPathMTUDiscoveryWorksWhereverThePathIsNarrow(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	p.startIperfServers()
	for _, n := range narrows {
		n.links(p)
		for _, w := range p.ways() {
			if !strings.Contains(strings.Join(n.ways, ","), w.name) {
				continue
			}
			for _, server := range w.servers() {
				p.discovers(n, w, server)
			}
		}
		p.setMTU(1500)
		for _, ns := range p.Namespaces() { // what was learned
			p.must(ns, "ip -4 route flush cache")
			p.must(ns, "ip -6 route flush cache")
		}
	}
}

// discovers sends packets that are too large, and then what has learned from that.
func (p *pathSite) discovers(n narrow, w way, server netip.Addr) {
	p.t.Helper()
	what := fmt.Sprintf("narrow %s: %s to %s", n.name, w.name, server)
	mtu := "tc " + w.ingress + " stack-mtu"
	want, may := []string{mtu}, []string{mtu}
	if n.hop == "tor" {
		want, may = []string{"tc eth0 delivered"}, nil // its ICMP error
	}
	p.redirects(what+", too big", func() {
		r := p.in(w.from, "ping", "-n", "-c1", "-W2", "-Mdo", "-s1400", server.String())
		if !strings.Contains(strings.ToLower(r.out+r.err), fmt.Sprintf("mtu = %d", smallMTU)) && !strings.Contains(r.out, fmt.Sprintf("mtu=%d", smallMTU)) {
			p.t.Errorf("%s: nobody says mtu %d: %s%s", what, smallMTU, r.out, r.err)
		}
	}, want, may...)
	learned := p.must(w.from, "ip route get "+server.String())
	if !strings.Contains(learned, fmt.Sprintf("mtu %d", smallMTU)) {
		p.t.Errorf("%s: the sender has not learned: %s", what, learned)
	}
	eventually(p.t, func() error { return p.reaches(w.from, server, "-s3000", "-W1") }) // the other end has to learn it, too
	p.redirects(what+", in fragments of the sender", func() {                           // IPv6, and IPv4 that has learned
		if err := p.reaches(w.from, server, "-s3000"); err != nil {
			p.t.Errorf("%s: %v", what, err)
		}
	}, nil, may...)
	// A TCP connection that begins with segments of 1500, in both directions.
	p.must(w.from, "ip -4 route flush cache")
	p.must(w.from, "ip -6 route flush cache")
	p.redirects(what+", TCP", func() { p.iperf(what, w.from, server, "-t", "2", "-b", "50M") }, nil, may...)
	if server.Is4() && n.hop == "gateway" {
		p.must(w.from, "ip -4 route flush cache")
		p.redirects(what+", without DF", func() {
			if err := p.reaches(w.from, server, "-Mdont", "-s1400"); err != nil {
				p.t.Errorf("%s: the gateway makes no fragments: %v", what, err)
			}
		}, []string{mtu}, mtu)
	}
}

// TestThePathMTUOfATunnelIsTold: it is narrower than the links.
func TestThePathMTUOfATunnelIsTold(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{tunnel: true})
	for _, server := range []netip.Addr{lab.Inner4, lab.Inner6} {
		p.redirects("too big for the tunnel", func() {
			r := p.in(p.Workload(1), "ping", "-n", "-c1", "-W2", "-Mdo", "-s1430", server.String())
			if said := strings.ReplaceAll(r.out+r.err, "mtu = ", "mtu="); !strings.Contains(said, "mtu=14") {
				t.Errorf("%s: nobody tells the tunnel's MTU: %s", server, said)
			}
		}, []string{"tc web-1 stack-mtu"}, "tc web-1 stack-mtu")
		p.redirects("fragments through the tunnel", func() {
			if err := p.reaches(p.Workload(1), server, "-s8000"); err != nil {
				t.Errorf("fragments through the tunnel: %v", err)
			}
		}, []string{"tc web-1 forwarded", "tc fra1 stack-l3"}, "tc fra1 stack-l3")
	}
}

// TestFragmentsPassBothWays: echoes of 8000 bytes, of which every packet of 1500 is a fragment; under default: drop the
// later ones of what comes in follow their first.
func TestFragmentsPassBothWays(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	for _, w := range p.ways() {
		for _, server := range w.servers() {
			for _, size := range []string{"-s1473", "-s8000", "-s60000"} {
				p.redirects(w.name+", fragments", func() {
					if err := p.reaches(w.from, server, size); err != nil {
						t.Error(err)
					}
				}, w.want)
			}
		}
	}
}
