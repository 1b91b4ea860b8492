package netns

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
)

// torOf is BIRD as one of two ToRs, with its number in its addresses: the client is behind both.
const torOf = `
log %%q all; debug protocols { states, events };
router id 198.18.%[1]d.1;
protocol device { scan time 1; }
protocol static client4 { ipv4; route 198.51.100.10/32 via %[2]q; }
protocol static client6 { ipv6; route 2001:db8:c::10/128 via %[2]q; }
protocol kernel kernel4 { ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel kernel6 { ipv6 { import none; export where source = RTS_BGP; }; }
template bgp session {
  hold time 90; connect retry time 1; connect delay time 1; error wait time 1, 2;
  graceful restart on; graceful restart time 60;
}
protocol bgp edge from session {
  local 198.18.%[1]d.1 as 6500%[3]d; neighbor 198.18.%[1]d.2 as 65010;
  ipv4 { import all; export where source = RTS_STATIC; };
}
protocol bgp edge6 from session {
  local %[4]s1 as 6500%[3]d; neighbor %[4]s2 as 65010;
  ipv6 { import all; export where source = RTS_STATIC; };
}
`

// twoTors is a gateway whose workloads and LAN have the client behind two ToRs, by what BGP learned alone, and the client them.
type twoTors struct {
	*pathSite
	birds [2]*bird
}

func newTwoTors(t *testing.T) *twoTors {
	t.Helper()
	p := &twoTors{pathSite: &pathSite{site: newBareSite(t)}}
	p.lan = p.Attacker
	other := p.Peer.Namespace // no node of this site: the second ToR
	all := func(ns *lab.Namespace, commands ...string) {
		t.Helper()
		for _, words := range commands {
			p.must(ns, words)
		}
	}
	const hash = "sysctl -q -w net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1" // by ports
	all(other, hash, "sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0",
		"ip link add gateway type veth peer name eth1 netns "+p.Gateway.Name, "ip link add client type veth peer name eth1 netns "+p.Client.Name,
		"ip link set gateway up", "ip addr add 198.18.8.1/30 dev gateway", "ip addr add 2001:db8:8::1/64 dev gateway nodad",
		"ip link set client up", "ip addr add 198.51.101.1/24 dev client", "ip addr add 2001:db8:d::1/64 dev client nodad")
	all(p.Client, hash, "sysctl -q -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0",
		"ip link set eth1 up", "ip addr add 198.51.101.10/24 dev eth1", "ip addr add 2001:db8:d::10/64 dev eth1 nodad",
		"ip route add 203.0.113.0/24 src 198.51.100.10 nexthop via 198.51.100.1 nexthop via 198.51.101.1",
		"ip -6 route add 2001:db8:100::/48 src 2001:db8:c::10 nexthop via 2001:db8:c::1 nexthop via 2001:db8:d::1")
	all(other, "ip route add 198.51.100.10/32 via 198.51.101.10", "ip -6 route add 2001:db8:c::10/128 via 2001:db8:d::10")
	all(p.Gateway.Namespace, hash, "ip link set eth1 up")
	p.wireLAN()
	p.birds = [2]*bird{
		startBirdIn(t, p.site, p.ToR, "a", fmt.Sprintf(torOf, 0, "client", 0, "2001:db8::")),
		startBirdIn(t, p.site, other, "b", fmt.Sprintf(torOf, 8, "client", 1, "2001:db8:8::")),
	}
	routes := pathFile[strings.Index(pathFile, "routes:\n"):strings.Index(pathFile, "management:\n")]
	p.write(edited(t, pathFile, "  - {name: lan0,", "  - {name: eth1, role: uplink, addresses: [198.18.8.2/30, \"2001:db8:8::2/64\"]}\n  - {name: lan0,", routes, "") + `
bgp:
  asn: 65010
  router_id: 198.18.0.2
  groups: [{name: tors, graceful_restart: {restart_time: 60s}}]
  neighbors:
    - {name: a, group: tors, address: 198.18.0.1, asn: 65000}
    - {name: a6, group: tors, address: "2001:db8::1", asn: 65000}
    - {name: b, group: tors, address: 198.18.8.1, asn: 65001}
    - {name: b6, group: tors, address: "2001:db8:8::1", asn: 65001}
  advertise: [{prefixes: [203.0.113.0/24, "2001:db8:100::/48"]}]
  learn: {ecmp: 8, accept: [{prefix: 198.51.100.0/24, le: 32}, {prefix: "2001:db8:c::/64", le: 128}]}
`)
	p.start()
	p.both()
	p.warm()
	return p
}

// both waits until all sessions are up, both ToRs have our prefixes, and the kernel goes by both.
func (p *twoTors) both() {
	p.t.Helper()
	eventually(p.t, func() error {
		if st := p.status(); st.Established != 4 {
			return fmt.Errorf("%d of 4 sessions are up", st.Established)
		}
		for _, b := range p.birds {
			if err := b.has("203.0.113.0/24", "2001:db8:100::/48"); err != nil {
				return err
			}
		}
		routes := p.must(p.Gateway.Namespace, "ip -4 route show proto 186") + p.must(p.Gateway.Namespace, "ip -6 route show proto 186")
		for _, hop := range []string{"198.18.0.1", "198.18.8.1", "2001:db8::1", "2001:db8:8::1"} {
			if strings.Count(routes, "via "+hop+" ") != 1 {
				return fmt.Errorf("the kernel does not go by %s:\n%s", hop, routes)
			}
		}
		return nil
	})
}

// spread fails unless both ToRs carried packets in both directions.
func (p *twoTors) spread(n tally) {
	p.t.Helper()
	for _, key := range []string{"tc eth0 delivered", "tc eth1 delivered", "tc eth0 judged", "tc eth1 judged"} {
		if n.packets[key] < 100 {
			p.t.Errorf("%s counted %d. What moved:\n%s", key, n.packets[key], n)
		}
	}
}

// What is forwarded goes on in both directions through both ToRs whatever becomes of the daemon, and nothing of it is lost.
func TestForwardingBetweenTwoToRsLosesNothingToKillsAndUpgrades(t *testing.T) {
	t.Parallel()
	next := buildNext(t)
	p := newTwoTors(t)
	l := p.loaded()
	before := p.tally()
	for _, phase := range []struct {
		name string
		do   func()
	}{
		{"kill -9 and a start", func() { p.kill(); l.goesOn(); p.start() }},
		{"SIGTERM and a start", func() { p.terminate(); l.goesOn(); p.start() }},
		{"an upgrade", func() { p.upgrades(next, l) }},
		{"a downgrade after kill -9", func() { p.kill(); l.goesOn(); p.start() }},
	} {
		lost, begin := l.lost(), time.Now()
		phase.do()
		p.both()
		l.goesOn()
		t.Logf("%s: %s, %d datagrams lost", phase.name, time.Since(begin).Round(time.Millisecond), l.lost()-lost)
	}
	p.spread(p.tally().since(before))
	lost, sent := l.ends()
	t.Logf("%d datagrams sent and to be echoed, %d lost", sent, lost)
	if lost != 0 {
		t.Errorf("%d of %d datagrams were lost", lost, sent)
	}
}
