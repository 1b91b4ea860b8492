package netns

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// tunnelMTU is that of the gateway's end: the peer believes in more, and nobody tells it.
const tunnelMTU = 1300

// narrowTunnel is a path site with a userspace WireGuard tunnel of a small MTU. ICMP errors are filtered everywhere.
func narrowTunnel(t *testing.T, settings string) *pathSite {
	t.Helper()
	const known, alsoLAN = `[203.0.113.0/24, "2001:db8:100::/48"]`, `[203.0.113.0/24, "2001:db8:100::/48", 10.200.0.1/32, 198.18.4.0/24, "2001:db8:4::/64", "2001:db8::2/128"]`
	p := newPath(t, pathOptions{tunnel: true, peer: []string{"        prefixes: " + known, "        prefixes: " + alsoLAN},
		edit: []string{"    strict: true\n", fmt.Sprintf("    strict: true\n    mtu: %d\n%s", tunnelMTU, settings)}})
	for _, ns := range []*lab.Namespace{p.Workload(1), p.Workload(2), p.Peer.Namespace, p.lan} {
		p.must(ns, "nft add table inet silence")
		p.must(ns, "nft add chain inet silence in { type filter hook input priority 0 ; }")
		p.must(ns, "nft add rule inet silence in icmp type destination-unreachable drop")
		p.must(ns, "nft add rule inet silence in icmpv6 type packet-too-big drop")
		p.must(ns, "sysctl -qw net.ipv4.tcp_mtu_probing=0")
	}
	for _, server := range []netip.Addr{lab.Inner4, lab.Inner6} {
		p.startIperfServer(p.Peer.Namespace, server, 5201)
	}
	return p
}

func TestTCPByANarrowTunnelNeedsNoICMP(t *testing.T) {
	t.Parallel()
	p := narrowTunnel(t, "")
	for _, server := range []netip.Addr{lab.Inner4, lab.Inner6} {
		for _, from := range []*lab.Namespace{p.Workload(1), p.lan, p.Gateway.Namespace} { // redirected, by the stack, the box's own
			n := p.moves(func() { p.iperf(from.Name+" through the tunnel", from, server, "-n", "2M") }) // both directions at once
			if n.packets["tc web-1 stack-mtu"] != 0 {
				t.Errorf("%s to %s: packets were too large for the tunnel:\n%s", from.Name, server, n)
			}
		}
	}
	for family, mss := range map[string]uint16{"203.0.113.10:4000 > 10.20.0.1:80": tunnelMTU - 40, "[2001:db8:100::10]:4000 > [fd00:20::1]:80": tunnelMTU - 60} {
		r := p.sluice("explain", "--in", "web-1", "--packet", "tcp "+family+" mss=1460", "-o", "json")
		var e api.Explanation
		if err := json.Unmarshal([]byte(r.out), &e); err != nil || len(e.Hooks) != 2 {
			t.Fatalf("explain %s: %v: %s%s", family, err, r.out, r.err)
		}
		if h := e.Hooks[1]; h.Hook != "tcx-egress" || h.Interface != "fra1" || h.Reason != "judged" || h.MSS != mss {
			t.Errorf("explain %s says %+v", family, h)
		}
		if text := p.sluice("explain", "--in", "web-1", "--packet", "tcp "+family+" mss=1460"); !strings.Contains(text.out, fmt.Sprintf("MSS becomes %d", mss)) {
			t.Errorf("explain %s: %s", family, text.out)
		}
	}
}

// TestWithoutClampMSSTCPStandsStillInANarrowTunnel: what is too large for the tunnel is sent again and again.
func TestWithoutClampMSSTCPStandsStillInANarrowTunnel(t *testing.T) {
	t.Parallel()
	p := narrowTunnel(t, "    clamp_mss: false\n")
	for _, server := range []netip.Addr{lab.Inner4, lab.Inner6} {
		conn, err := p.Workload(1).Dial(t.Context(), "tcp", netip.AddrPortFrom(server, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		before := p.tally()
		if _, err := conn.Write([]byte("GET /" + strings.Repeat("x", 1380) + " HTTP/1.0\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if n := p.tally().since(before).packets["tc web-1 stack-mtu"]; n < 3 {
				return fmt.Errorf("%s: %d packets were too large for the tunnel", server, n)
			}
			return nil
		})
		conn.Close()
	}
}
