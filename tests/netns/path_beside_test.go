package netns

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/cmd/lab"
)

// forwardDrop are rules of somebody else that forbid what the kernel forwards for both workloads, in each of its filters.
const forwardDrop = `
nft add table inet foreign
nft add chain inet foreign forward { type filter hook forward priority 0 ; policy drop ; }
nft add chain inet foreign raw { type filter hook prerouting priority -300 ; policy accept ; }
nft add rule inet foreign raw ip saddr 203.0.113.0/24 counter notrack
nft add table ip foreignnat
nft add chain ip foreignnat postrouting { type nat hook postrouting priority 100 ; }
nft add rule ip foreignnat postrouting ip saddr 203.0.113.0/24 masquerade
iptables-nft -P FORWARD DROP
ip6tables-nft -P FORWARD DROP
iptables-legacy -P FORWARD DROP
ip6tables-legacy -P FORWARD DROP
`

func TestForeignRulesForbidOnlyWhatTakesTheStack(t *testing.T) {
	t.Parallel()
	const one = "interface: web-1, addresses"
	p := newPath(t, pathOptions{})
	for line := range strings.Lines(strings.TrimSpace(forwardDrop)) {
		p.must(p.Gateway.Namespace, line)
	}
	before := p.netfilter()
	for _, w := range p.ways() {
		for _, server := range w.servers() {
			p.redirects(w.name+", beside foreign rules", func() {
				if err := p.reaches(w.from, server); err != nil {
					t.Error(err)
				}
			}, w.want)
		}
	}
	p.edit(one, "path: stack, "+one)
	p.apply()
	for _, w := range p.ways() {
		stack := w.from == p.Workload(1) || w.to == p.Workload(1)
		for _, server := range w.servers() {
			n := p.moves(func() {
				if err := p.reaches(w.from, server, "-W1"); (err == nil) == stack {
					t.Errorf("%s to %s, with web-1 on the stack's path: %v", w.name, server, err)
				}
			})
			if stack && n.packets["tc "+w.ingress+" stack-path"] == 0 || n.forwarded > 0 && !stack {
				t.Errorf("%s to %s, with web-1 on the stack's path:\n%s", w.name, server, n)
			}
		}
	}
	p.same("beside what took the stack", before, p.netfilter())
	for _, words := range []string{"nft delete table inet foreign", "nft delete table ip foreignnat", "iptables-nft -P FORWARD ACCEPT",
		"ip6tables-nft -P FORWARD ACCEPT", "iptables-legacy -P FORWARD ACCEPT", "ip6tables-legacy -P FORWARD ACCEPT"} {
		p.must(p.Gateway.Namespace, words)
	}
	for _, server := range webOne { // without them it does work that way
		n := p.moves(func() {
			if err := p.reaches(p.Client, server); err != nil {
				t.Error(err)
			}
		})
		if n.forwarded < 2 || n.packets["tc eth0 stack-path"] == 0 || n.packets["tc web-1 stack-path"] == 0 {
			t.Errorf("%s on the stack's path:\n%s", server, n)
		}
	}
	for _, flags := range [][]string{{"-s8000"}, {"-t3"}} {
		for _, server := range []netip.Addr{lab.Client4, lab.Client6} {
			if err := p.reaches(p.Workload(1), server, flags...); err != nil {
				t.Error(fmt.Errorf("on the stack's path: %w", err))
			}
		}
	}
	p.edit("path: stack, "+one, one)
	p.apply()
	w := p.ways()[0]
	p.redirects("redirected again", func() {
		if err := p.reaches(w.from, w.server4); err != nil {
			t.Error(err)
		}
	}, w.want)
}
