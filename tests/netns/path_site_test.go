package netns

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

//go:embed testdata/path.yaml
var pathFile string

// The downstream LAN of a path site: one host, which is the attacker's namespace under another name.
var (
	lanHost4 = netip.MustParseAddr("198.18.4.2")
	lanHost6 = netip.MustParseAddr("2001:db8:4::2")
)

// pathSite is a gateway with static routes whose policies let everything pass that the inside begins or ICMP and the
// tests' ports ask for: what is looked at is the way that packets take. Behind it are the workloads, a LAN and, with
// withTunnel, the peer.
type pathSite struct {
	*site
	lan *lab.Namespace
}

// pathOptions are what a path site is built with; zero values are the default.
type pathOptions struct {
	mtu    int  // of every link; 0: 1500
	tunnel bool // start the peer, and a tunnel to it
	edit   []string
	peer   []string // the same of the peer's file
}

// newPath builds a path site, and starts its daemons.
func newPath(t *testing.T, o pathOptions) *pathSite {
	t.Helper()
	p := &pathSite{site: newBareSite(t)}
	p.lan = p.Attacker
	p.wireLAN()
	if o.mtu != 0 {
		p.setMTU(o.mtu)
	}
	for _, ns := range p.Namespaces() { // ICMP errors come one by one, but a test's come at once
		if err := errors.Join(ns.Sysctl("net/ipv4/icmp_ratelimit", "0"), ns.Sysctl("net/ipv6/icmp/ratelimit", "0")); err != nil {
			t.Fatal(err)
		}
	}
	for _, words := range []string{"203.0.113.0/24 via 198.18.0.2", "2001:db8:100::/48 via 2001:db8::2",
		"198.18.4.0/24 via 198.18.0.2", "2001:db8:4::/64 via 2001:db8::2"} {
		p.must(p.ToR, "ip route add "+words)
	}
	text := pathFile
	if o.tunnel {
		text += p.tunnelSection()
		p.openPeer(o.peer)
	}
	p.write(edited(t, text, o.edit...))
	p.start()
	p.warm()
	return p
}

// wireLAN makes lan0 in the gateway, with a host behind it.
func (p *pathSite) wireLAN() {
	p.t.Helper()
	p.must(p.Gateway.Namespace, "ip link add lan0 address 02:00:00:00:01:01 type veth peer name lan netns "+p.lan.Name)
	p.must(p.Gateway.Namespace, "ip link set lan0 up")
	for _, words := range []string{
		"ip link set lan up", "ip addr add 198.18.4.2/24 dev lan", "ip addr add 2001:db8:4::2/64 dev lan nodad",
		"ip route replace default via 198.18.4.1", "ip route replace default via 2001:db8:4::1",
	} {
		p.must(p.lan, words)
	}
	p.quiet()
}

// setMTU sets every link of the site but the loopbacks.
func (p *pathSite) setMTU(mtu int) {
	p.t.Helper()
	for _, ns := range p.Namespaces() {
		for line := range strings.Lines(p.must(ns, "ip -o link show type veth")) {
			name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
			p.must(ns, fmt.Sprintf("ip link set %s mtu %d", name, mtu))
		}
	}
}

// tunnelSection is the lab's own tunnel to the peer, with the keys of this site.
func (p *pathSite) tunnelSection() string {
	p.t.Helper()
	from, to := strings.Index(p.rendered, "\ntunnels:\n"), strings.Index(p.rendered, "\napply:\n")
	if from < 0 || to < from {
		p.t.Fatal("configs/lab-gateway.yaml has no tunnels: before apply:")
	}
	return p.rendered[from:to]
}

// openPeer starts the other end of the tunnel, which lets everything in.
func (p *pathSite) openPeer(edit []string) {
	p.t.Helper()
	text, err := os.ReadFile(p.Peer.File)
	if err != nil {
		p.t.Fatal(err)
	}
	changed := edited(p.t, strings.ReplaceAll(string(text), "default: drop", "default: accept"), edit...)
	if err := os.WriteFile(p.Peer.File, []byte(changed), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.startPeer()
}

// warm waits until every host is answered: neighbors are known from then on, and the tunnel's handshake is over.
func (p *pathSite) warm() {
	p.t.Helper()
	for _, w := range p.ways() {
		for _, server := range w.servers() {
			eventually(p.t, func() error { return p.reaches(w.from, server) })
		}
	}
}

// reaches complains unless one echo of the default size is answered.
func (p *pathSite) reaches(from *lab.Namespace, to netip.Addr, flags ...string) error {
	p.t.Helper()
	r := p.in(from, "ping", append([]string{"-n", "-c1", "-W2", to.String()}, flags...)...)
	if r.code != 0 {
		return fmt.Errorf("ping from %s to %s %v: %s%s", from.Name, to, flags, r.out, r.err)
	}
	return nil
}

// tally are the packets by hook, interface and reason, as `tc eth0 delivered`, and the fate of each reason.
type tally struct {
	packets, bytes map[string]uint64
	fates          map[string]string
	forwarded      uint64 // by the kernel's own IPv4 and IPv6
}

func (p *pathSite) tally() tally {
	p.t.Helper()
	out := tally{map[string]uint64{}, map[string]uint64{}, map[string]string{}, p.kernelForwarded()}
	for _, r := range show[[]api.Reason](p.site, "reasons") {
		key := r.Hook + " " + r.Interface + " " + r.Reason
		out.packets[key], out.bytes[key], out.fates[key] = r.Packets, r.Bytes, r.Fate
	}
	return out
}

// since is what counted after base.
func (n tally) since(base tally) tally {
	out := tally{map[string]uint64{}, map[string]uint64{}, n.fates, n.forwarded - base.forwarded}
	for key, packets := range n.packets {
		if packets > base.packets[key] {
			out.packets[key], out.bytes[key] = packets-base.packets[key], n.bytes[key]-base.bytes[key]
		}
	}
	return out
}

func (n tally) String() string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(n.packets)) {
		lines = append(lines, fmt.Sprintf("%s (%s) %d", key, n.fates[key], n.packets[key]))
	}
	return strings.Join(append(lines, fmt.Sprintf("the kernel forwarded %d", n.forwarded)), "\n")
}

// kernelForwarded is how many packets the gateway's own stack has forwarded: a witness that asks nobody of ours.
func (p *pathSite) kernelForwarded() (n uint64) {
	p.t.Helper()
	snmp := strings.Fields(p.must(p.Gateway.Namespace, "cat /proc/net/snmp"))
	if at := slices.Index(snmp, "ForwDatagrams"); at >= 0 { // the values follow behind a second "Ip:"
		values := slices.Index(snmp[1:], "Ip:") + 1
		v, err := strconv.ParseUint(snmp[values+at], 10, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		n += v
	}
	snmp6 := strings.Fields(p.must(p.Gateway.Namespace, "cat /proc/net/snmp6"))
	v, err := strconv.ParseUint(snmp6[slices.Index(snmp6, "Ip6OutForwDatagrams")+1], 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return n + v
}

// atRest counts once the kernel forwards nothing any more: a connection through the tunnel ends after its test.
func (p *pathSite) atRest() tally {
	p.t.Helper()
	now := p.tally()
	for deadline := time.Now().Add(patience); ; {
		time.Sleep(50 * time.Millisecond)
		next := p.tally()
		if next.forwarded == now.forwarded {
			return next
		}
		if now = next; time.Now().After(deadline) {
			p.t.Fatal("the kernel does not end to forward")
		}
	}
}

// moves is what counted while f ran.
func (p *pathSite) moves(f func()) tally {
	p.t.Helper()
	before := p.atRest()
	f()
	return p.tally().since(before)
}

// redirects fails unless f moves each of the wanted counters, and none of a drop nor of a packet left to the stack, but
// for those that may be. Unless one may, the kernel forwards nothing.
func (p *pathSite) redirects(what string, f func(), want []string, may ...string) tally {
	p.t.Helper()
	n := p.moves(f)
	for _, key := range want {
		if n.packets[key] == 0 {
			p.t.Errorf("%s: %s counted nothing. What moved:\n%s", what, key, n)
		}
	}
	for key, packets := range n.packets {
		if fate := n.fates[key]; (fate == "drop" || fate == "stack") && !slices.Contains(may, key) {
			p.t.Errorf("%s: %s counted %d. What moved:\n%s", what, key, packets, n)
		}
	}
	if n.forwarded > 0 && len(may) == 0 {
		p.t.Errorf("%s: the kernel forwarded %d packets. What moved:\n%s", what, n.forwarded, n)
	}
	return n
}

// addressOf is the address of a host that a way to another begins with.
func (p *pathSite) addressOf(ns *lab.Namespace, to netip.Addr) netip.Addr {
	p.t.Helper()
	own := map[*lab.Namespace][2]netip.Addr{p.Client: {lab.Client4, lab.Client6}, p.lan: {lanHost4, lanHost6},
		p.Workload(1): {lab.Web4[0], lab.Web6[0]}, p.Workload(2): {lab.Web4[1], lab.Web6[1]}}[ns]
	if to.Is6() {
		return own[1]
	}
	return own[0]
}

func ipAddr(a netip.Addr) *net.IPAddr { return &net.IPAddr{IP: a.AsSlice()} }
