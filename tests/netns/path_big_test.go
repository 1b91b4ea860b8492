package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"sluice/cmd/lab"
)

// bigBuffers is more than the length fields of IPv4 and IPv6 hold: such a buffer has 0 there (BIG TCP).
const bigBuffers = 180_000

// big lets a host hand over buffers beyond 64 KB.
func (p *pathSite) big(ns *lab.Namespace, link string) {
	p.t.Helper()
	nl := ns.Netlink()
	l, err := nl.LinkByName(link)
	if err == nil {
		err = errors.Join(nl.LinkSetGSOMaxSize(l, bigBuffers), nl.LinkSetGSOIPv4MaxSize(l, bigBuffers),
			nl.LinkSetGROMaxSize(l, bigBuffers), nl.LinkSetGROIPv4MaxSize(l, bigBuffers))
	}
	if err != nil {
		p.t.Fatalf("larger buffers on %s of %s: %v", link, ns.Name, err)
	}
}

func TestBuffersBeyond64KBPass(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	for _, end := range []struct {
		ns   *lab.Namespace
		link string
	}{{p.Workload(1), "eth0"}, {p.Workload(2), "eth0"}, {p.lan, "lan"}, {p.Gateway.Namespace, "eth0"}, {p.Gateway.Namespace, "web-1"},
		{p.Gateway.Namespace, "web-2"}, {p.Gateway.Namespace, "lan0"}, {p.ToR, "gateway"}, {p.ToR, "client"}, {p.Client, "eth0"}} {
		p.big(end.ns, end.link)
	}
	p.startIperfServers()
	for _, w := range p.ways() {
		for _, server := range w.servers() {
			if server.Is6() && (w.from == p.Client || w.to == p.Client) {
				continue // the ToR is a kernel that takes the jumbogram's header for a part of each segment, up to 6.18
			}
			what := fmt.Sprintf("%s, %s", w.name, server)
			p.passesBig(what, w, server)
		}
	}
	// And what the box itself sends.
	p.startIperfServer(p.Client, lab.Client4, 5202)
	for _, server := range []netip.Addr{lab.Client4} {
		p.redirects("the box itself", func() { p.iperf("the box itself", p.Gateway.Namespace, server, "-p5202", "-n", "20M", "-w", "6M") }, []string{"tc eth0 default-accept"})
	}
}

// passesBig sends until the mean of what the hook saw, acknowledgements included, shows buffers beyond 64 KB: how much TCP puts into one
// depends on its pace, so one run may not show it.
func (p *pathSite) passesBig(what string, w way, server netip.Addr) {
	p.t.Helper()
	key := "tc " + w.ingress + " " + w.want[0][len("tc "+w.ingress+" "):]
	mean := uint64(0)
	for range 6 {
		n := p.redirects(what, func() { p.iperf(what, w.from, server, "-n", "20M", "-w", "6M") }, w.want)
		if mean = n.bytes[key] / max(n.packets[key], 1); mean > 1<<16 || w.from == p.Client || w.to == p.Client {
			return
		}
	}
	p.t.Errorf("%s: %d bytes in the mean, want buffers beyond 64 KB", what, mean)
}
