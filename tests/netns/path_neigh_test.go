package netns

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/cmd/lab"
)

func TestAFirstPacketWaitsForItsNeighbor(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	for _, w := range p.ways() {
		for _, server := range w.servers() {
			p.must(p.Gateway.Namespace, "ip neigh flush all")
			p.must(w.to, "ip neigh flush all")
			if err := p.reaches(w.from, server); err != nil {
				t.Errorf("%s, neighbors unknown: %v", w.name, err)
			}
		}
	}
}

// TestANeighborThatNobodyIsIsTold: the kernel looks for the next hop, and says so when it finds none.
func TestANeighborThatNobodyIsIsTold(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	for _, nobody := range []string{"198.18.4.99", "2001:db8:4::99"} {
		n := p.moves(func() {
			r := p.in(p.Workload(2), "ping", "-n", "-c1", "-W8", nobody)
			if said := strings.ToLower(r.out); !strings.Contains(said, "unreachable") {
				t.Errorf("ping %s: %s%s", nobody, r.out, r.err)
			}
		})
		if n.packets["tc web-2 stack-neighbour"] == 0 {
			t.Errorf("%s: stack-neighbour counted nothing:\n%s", nobody, n)
		}
	}
}

func TestANeighborMayChangeItsMAC(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	changes := []struct {
		ns   *lab.Namespace
		link string
	}{{p.ToR, "gateway"}, {p.lan, "lan"}, {p.Workload(1), "eth0"}, {p.Workload(2), "eth0"}}
	for i, c := range changes {
		for _, key := range []string{"net/ipv4/conf/%s/arp_notify", "net/ipv6/conf/%s/ndisc_notify"} {
			if err := c.ns.Sysctl(fmt.Sprintf(key, c.link), "1"); err != nil {
				t.Fatal(err)
			}
		}
		p.must(c.ns, fmt.Sprintf("ip link set %s address 02:00:5e:00:53:%02x", c.link, i+1))
		for _, w := range p.ways() {
			for _, server := range w.servers() { // an entry that was made this second is not updated at once
				eventually(t, func() error { return p.reaches(w.from, server, "-W1") })
			}
		}
	}
	for _, w := range p.ways() {
		for _, server := range w.servers() {
			p.redirects(w.name+", after all changes", func() {
				if err := p.reaches(w.from, server); err != nil {
					t.Error(err)
				}
			}, w.want, "tc web-1 stack-neighbour", "tc web-2 stack-neighbour")
		}
	}
}

func TestAnIPv4RouteMayHaveAnIPv6NextHop(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	hop := strings.Fields(p.must(p.ToR, "ip -6 -o addr show dev gateway scope link"))[3]
	hop, _, _ = strings.Cut(hop, "/")
	for _, via := range []string{"2001:db8::1", hop} {
		p.must(p.Gateway.Namespace, "ip route replace 198.51.100.10/32 via inet6 "+via+" dev eth0")
		p.must(p.Gateway.Namespace, "ip neigh flush all")
		for range 2 { // the first looks for the neighbor
			if err := p.reaches(p.Workload(1), lab.Client4); err != nil {
				t.Errorf("via %s: %v", via, err)
			}
		}
		p.redirects("IPv4 via "+via, func() {
			if err := p.reaches(p.Workload(1), lab.Client4); err != nil {
				t.Error(err)
			}
		}, []string{"tc web-1 forwarded", "tc eth0 judged", "tc eth0 delivered"})
	}
}

// TestAWorkloadIsNotReachedByAnothersTricks: what it does on its own link stays there.
func TestAWorkloadIsNotReachedByAnothersTricks(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	one, two := p.Workload(1), p.Workload(2)
	link := func(ns *lab.Namespace, words string, at int) string {
		return strings.Fields(p.must(ns, words))[at]
	}
	theirs, _, _ := strings.Cut(link(two, "ip -6 -o addr show dev eth0 scope link", 3), "/")
	for what, words := range map[string][]string{
		"its link-local address":   {"ping", "-n", "-c1", "-W1", theirs + "%eth0"},
		"its group of all nodes":   {"ping", "-n", "-c2", "-W1", "ff02::1%eth0"},
		"a route on its own link":  {"sh", "-c", "ip route add 203.0.113.11 dev eth0 && ping -n -c1 -W1 203.0.113.11; r=$?; ip route del 203.0.113.11 dev eth0; exit $r"},
		"the same of IPv6":         {"sh", "-c", "ip -6 route add 2001:db8:100::11 dev eth0 && ping -n -c1 -W1 2001:db8:100::11; r=$?; ip -6 route del 2001:db8:100::11 dev eth0; exit $r"},
		"another's address":        {"sh", "-c", "ip addr add 203.0.113.11/32 dev lo && ping -n -c1 -W1 -I 203.0.113.11 198.51.100.10; r=$?; ip addr del 203.0.113.11/32 dev lo; exit $r"},
		"another's IPv6 address":   {"sh", "-c", "ip addr add 2001:db8:100::11/128 dev lo nodad && ping -n -c1 -W1 -I 2001:db8:100::11 2001:db8:c::10; r=$?; ip addr del 2001:db8:100::11/128 dev lo; exit $r"},
		"a link-local source":      {"ping", "-n", "-c1", "-W1", "-I", "eth0", "-S", "0", theirs + "%eth0"},
		"a route by the other one": {"sh", "-c", "ip route add 198.19.7.7 via 203.0.113.11 dev eth0 onlink && ping -n -c1 -W1 198.19.7.7; r=$?; ip route del 198.19.7.7; exit $r"},
	} {
		if r := p.in(one, words[0], words[1:]...); r.code == 0 && (what != "its group of all nodes" || strings.Contains(r.out, theirs)) {
			t.Errorf("%s: web-1 was answered: %s%s", what, r.out, r.err)
		}
	}
	// Its ARP for the other's address changes nothing at the gateway: that address is behind another link.
	p.must(one, "ip addr add 203.0.113.11/32 dev eth0")
	p.in(one, "ping", "-n", "-c1", "-W1", "-I", "203.0.113.11", "169.254.1.1")
	p.must(one, "ip addr del 203.0.113.11/32 dev eth0")
	p.answers(p.Client, lab.Web4[1], 80, "web-2")
	for _, server := range []netip.Addr{lab.Web4[1], lab.Web6[1]} {
		if err := p.reaches(one, server); err != nil { // the way that is there
			t.Error(err)
		}
	}
}
