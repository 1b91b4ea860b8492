package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
)

func TestARouteThatLeadsNowhereIsAReasonAndAnAnswer(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	cases := []struct {
		kind, reason string
		says         []string // any of it; none: silence
	}{
		{"blackhole", "no-route", nil},
		{"unreachable", "stack-no-route", []string{"Destination Host Unreachable", "Address unreachable", "No route"}},
		{"prohibit", "stack-no-route", []string{"Packet filtered", "dministratively prohibited"}},
	}
	for _, c := range cases {
		for _, to := range []netip.Addr{lab.Client4, lab.Client6} {
			prefix := netip.PrefixFrom(to, to.BitLen()).String()
			p.must(p.Gateway.Namespace, "ip route add "+c.kind+" "+prefix)
			n := p.moves(func() {
				r := p.in(p.Workload(1), "ping", "-n", "-c1", "-W1", to.String())
				if r.code == 0 || len(c.says) > 0 && !containsAny(r.out, c.says) || len(c.says) == 0 && strings.Contains(r.out, "From") {
					t.Errorf("%s %s: %s", c.kind, to, r.out)
				}
			})
			if n.packets["tc web-1 "+c.reason] != 1 || n.packets["tc eth0 judged"]+n.packets["tc eth0 forwarded"] > 0 || n.forwarded > 0 {
				t.Errorf("%s %s:\n%s", c.kind, to, n)
			}
			p.must(p.Gateway.Namespace, "ip route del "+c.kind+" "+prefix)
			if err := p.reaches(p.Workload(1), to); err != nil {
				t.Errorf("without %s: %v", c.kind, err)
			}
		}
	}
	// No route at all, and again one.
	for _, c := range []struct {
		to  netip.Addr
		via string
	}{{lab.Client4, "  - {prefix: 0.0.0.0/0, via: [198.18.0.1]}\n"}, {lab.Client6, "  - {prefix: \"::/0\", via: [\"2001:db8::1\"]}\n"}} {
		with := p.file
		p.edit(c.via, "")
		p.apply()
		n := p.moves(func() {
			r := p.in(p.Workload(1), "ping", "-n", "-c1", "-W1", c.to.String())
			if !containsAny(r.out, []string{"Destination Net Unreachable", "No route"}) {
				t.Errorf("no default route to %s: %s", c.to, r.out)
			}
		})
		if n.packets["tc web-1 stack-no-route"] != 1 || n.forwarded > 0 {
			t.Errorf("no default route to %s:\n%s", c.to, n)
		}
		p.write(with)
		p.apply()
		if err := p.reaches(p.Workload(1), c.to); err != nil {
			t.Error(err)
		}
	}
}

// twin is an address that both the client and the LAN's host have: the gateway's routes choose.
const twin = "198.19.6.1"

// twins gives both the address.
func (p *pathSite) twins() {
	p.t.Helper()
	p.must(p.Client, "ip addr add "+twin+"/32 dev lo")
	p.must(p.lan, "ip addr add "+twin+"/32 dev lo")
	p.must(p.ToR, "ip route add "+twin+"/32 via 198.51.100.10")
}

func TestFlowsAreSpreadOverEqualRoutesAndEachStaysOnOne(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	p.twins()
	p.must(p.Gateway.Namespace, "sysctl -q -w net.ipv4.fib_multipath_hash_policy=1")
	p.must(p.Gateway.Namespace, "ip route add "+twin+"/32 nexthop via 198.18.0.1 dev eth0 nexthop via 198.18.4.2 dev lan0")
	at := netip.AddrPortFrom(netip.MustParseAddr(twin), 7000)
	behind := map[string]*heard{"eth0": p.hear(p.Client, at), "lan0": p.hear(p.lan, at)}
	const flows, each = 40, 5
	n := p.redirects("over equal routes", func() {
		for range flows {
			p.sendDatagrams(p.Workload(1), lab.Web4[0], at, each)
		}
		eventually(t, func() error {
			if n := behind["eth0"].total() + behind["lan0"].total(); n != flows*each {
				return fmt.Errorf("%d of %d datagrams came", n, flows*each)
			}
			return nil
		})
	}, []string{"tc web-1 forwarded", "tc eth0 judged", "tc lan0 judged"})
	for link, h := range behind {
		if got := h.total(); got == 0 || got%each != 0 {
			t.Errorf("%d datagrams of %d flows of %d each by %s:\n%s", got, flows, each, link, n)
		}
	}
}

// TestARouteMayChangeUnderAConnection: by the ToR, then by the LAN's host, which is a router as well, and back.
func TestARouteMayChangeUnderAConnection(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := p.lan.Sysctl(key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	p.must(p.lan, "ip route replace default via 192.0.2.1")
	p.must(p.lan, "ip -6 route replace default via 2001:db8:a::1")
	for _, c := range []struct {
		to      netip.Addr
		aside   string
		between string
	}{
		{lab.Client4, "ip route replace 198.51.100.10/32 via 198.18.4.2", "ip route del 198.51.100.10/32"},
		{lab.Client6, "ip -6 route replace 2001:db8:c::10/128 via 2001:db8:4::2", "ip -6 route del 2001:db8:c::10/128"},
	} {
		at := netip.AddrPortFrom(c.to, 7001)
		p.echo(p.Client, at)
		conn, err := p.dial(p.Workload(1), at)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		for _, step := range []struct{ change, link string }{{"", "eth0"}, {c.aside, "lan0"}, {c.between, "eth0"}, {c.aside, "lan0"}} {
			if step.change != "" {
				p.must(p.Gateway.Namespace, step.change)
				// the neighbor may be new
				eventually(t, func() error { return p.reaches(p.Workload(1), c.to) })
			}
			p.redirects(step.change, func() { p.carries(conn, 100_000) }, []string{"tc web-1 forwarded", "tc " + step.link + " judged", "tc eth0 delivered"})
		}
	}
}

// TestRulesBySourceAndByLinkChooseTheTableAndMarksOfNetfilterAreNotMet: what is redirected passes by netfilter.
func TestRulesBySourceAndByLinkChooseTheTableAndMarksOfNetfilterAreNotMet(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	p.twins()
	at := netip.AddrPortFrom(netip.MustParseAddr(twin), 7002)
	byUplink, byLAN := p.hear(p.Client, at), p.hear(p.lan, at)
	p.must(p.Gateway.Namespace, "ip route add "+twin+"/32 via 198.18.4.2 table 77")
	p.must(p.Gateway.Namespace, "nft add table ip marks")
	p.must(p.Gateway.Namespace, "nft add chain ip marks prerouting { type filter hook prerouting priority -150 ; }")
	p.must(p.Gateway.Namespace, "nft add rule ip marks prerouting ip saddr 203.0.113.10 counter meta mark set 7")
	for _, c := range []struct {
		rule  string
		heard *heard
	}{
		{"", byUplink}, {"from 203.0.113.10 lookup 77", byLAN}, {"iif web-1 lookup 77", byLAN}, {"fwmark 7 lookup 77", byUplink},
		{"ipproto udp dport 7002 lookup 77", byLAN},
	} {
		if c.rule != "" {
			p.must(p.Gateway.Namespace, "ip rule add "+c.rule+" priority 500")
		}
		before := c.heard.total()
		p.redirects("rule "+c.rule, func() {
			deadline := time.Now().Add(5 * time.Second)
			for { // once at least: what came may be late, and of the case before
				p.sendDatagrams(p.Workload(1), lab.Web4[0], at, 1)
				time.Sleep(5 * time.Millisecond)
				if c.heard.total() != before {
					break
				}
				if time.Now().After(deadline) {
					t.Errorf("rule %q: %v", c.rule, errors.New("nothing came where it leads"))
					break
				}
			}
		}, []string{"tc web-1 forwarded"})
		if c.rule != "" {
			p.must(p.Gateway.Namespace, "ip rule del "+c.rule+" priority 500")
		}
	}
	if rules := p.must(p.Gateway.Namespace, "nft list table ip marks"); !strings.Contains(rules, "counter packets 0 ") {
		t.Errorf("netfilter saw what was redirected:\n%s", rules)
	}
}
