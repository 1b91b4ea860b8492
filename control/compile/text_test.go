package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/bgp"
	"sluice/control/host"
	"sluice/control/node"
	"sluice/crypto/ipsec"
	"sluice/crypto/path"
	"sluice/crypto/wireguard"
	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/classify"
)

// text prints a whole Desired, one line per thing, so that reviewing a golden file is reading. Digests are left out:
// they hold the compiled programs too.
func text(d *Desired) string {
	var p printer
	p.section("host", func() { p.host(d.Host) })
	p.section("path", func() { p.path(d.Path) })
	p.section("wireguard", func() { p.wireguard(d.WireGuard) })
	p.section("ipsec", func() { p.ipsec(d.IPsec) })
	p.section("xdp", func() { p.xdp(d.XDP) })
	p.section("tc", func() { p.tc(d.TC) })
	p.section("bgp", func() { p.bgp(d.BGP) })
	p.section("telemetry", func() {
		if d.Telemetry.Metrics.IsValid() {
			p.line("metrics", d.Telemetry.Metrics)
		}
	})
	p.section("node", func() { p.node(d.Node) })
	p.section("rule ids", func() {
		byID := func(a, b string) int { return int(d.RuleIDs[a]) - int(d.RuleIDs[b]) }
		for _, key := range slices.SortedFunc(maps.Keys(d.RuleIDs), byID) {
			p.line(d.RuleIDs[key], key)
		}
	})
	p.section("warnings", func() {
		for _, w := range d.Warnings {
			p.line(w)
		}
	})
	p.section("notes", func() {
		for _, n := range d.Notes {
			p.line(n)
		}
	})
	return p.out.String()
}

type printer struct{ out strings.Builder }

func (p *printer) section(name string, body func()) {
	fmt.Fprintf(&p.out, "%s\n", name)
	body()
}

// line prints words with one space between; empty ones are left out.
func (p *printer) line(words ...any) {
	p.out.WriteString(" ")
	for _, w := range words {
		if s := fmt.Sprint(w); s != "" {
			p.out.WriteString(" " + s)
		}
	}
	p.out.WriteString("\n")
}

// flagged is a word that stands there or not.
func flagged(is bool, word string) string {
	if is {
		return word
	}
	return ""
}

// number is a word with its number, left out where that is 0.
func number[N int | uint16 | uint32](word string, n N) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s %d", word, n)
}

func list[T any](v []T) string { return strings.Trim(fmt.Sprint(v), "[]") }

func (p *printer) host(s host.State) {
	for _, d := range s.Devices {
		p.line("device", d, flagged(d.Keep, "keep"))
	}
	for _, l := range s.Links {
		p.line("link", l.Name, flagged(l.Up, "up"), number("mtu", l.MTU), number("group", l.Group))
	}
	for _, a := range s.Addresses {
		p.line("address", a.Link, a.Prefix, flagged(a.Keep, "keep"))
	}
	for _, r := range s.Routes {
		p.line("route", r.Type, r.Prefix, flagged(len(r.Via) > 0, "via "+list(r.Via)), flagged(r.Link != "", "dev "+r.Link),
			number("metric", r.Metric), number("table", r.Table), flagged(r.Keep, "keep"))
	}
	for _, r := range s.Rules {
		p.line("rule", r.Priority, flagged(r.IPv6, "inet6"), flagged(r.From.IsValid(), "from "+r.From.String()), flagged(r.To.IsValid(), "to "+r.To.String()), flagged(r.Mask != 0, fmt.Sprintf("mark %#x/%#x", r.Mark, r.Mask)),
			flagged(r.InLink != "", "iif "+r.InLink), flagged(r.OutLink != "", "oif "+r.OutLink), number("table", r.Table),
			number("suppress group", r.SuppressGroup), number("shortest", r.Shortest), flagged(r.Prohibit, "prohibit"))
	}
	for _, y := range s.Sysctls {
		p.line("sysctl", y.Key, "=", y.Value)
	}
	for _, y := range s.Inner {
		p.line("behind", y.Link, "sysctl", y.Key, "=", y.Value)
	}
	for _, y := range s.Tags {
		p.line("vlan tags in the frames of", y.Link, flagged(!y.InFrame, "not"))
	}
	for _, q := range s.Qdiscs {
		p.line("fq on", q.Link, flagged(!q.FQ, "not"))
	}
	for _, t := range s.Tunings {
		p.line("tuning", flagged(t.Link != "", "link "+t.Link), t.What, t.Values)
	}
}

func (p *printer) wireguard(s wireguard.State) {
	for _, t := range s.Tunnels {
		p.line("tunnel", t.Name, t.Backend, "key", t.PrivateKeyFile, t.PublicKey, number("port", t.ListenPort),
			number("mtu", t.MTU), fmt.Sprintf("mark %#x", t.FirewallMark), "addresses", list(t.Addresses))
		for _, r := range t.Peers {
			p.line("  peer", r.Name, r.PublicKey, flagged(r.Endpoint.IsValid(), "endpoint "+r.Endpoint.String()),
				flagged(r.PresharedKeyFile != "", "psk "+r.PresharedKeyFile), flagged(r.Keepalive != 0, "keepalive "+r.Keepalive.String()),
				"allowed", list(r.AllowedIPs))
		}
		p.routes(t.Routes)
	}
}

func (p *printer) path(s path.State) {
	for _, b := range s.Blackholes {
		p.line("blackhole", b.Prefix, number("table", b.Table))
	}
}

func (p *printer) ipsec(s ipsec.State) {
	for _, t := range s.Tunnels {
		p.line("tunnel", t.Name, t.Keying, "id", t.ID, "local", t.Local, "encapsulation", t.Encapsulation, "window", t.ReplayWindow, "rekey", t.Rekey,
			number("mtu", t.MTU), fmt.Sprintf("mark %#x", t.FirewallMark), "addresses", list(t.Addresses),
			flagged(t.Charon != "", "charon "+t.Charon), flagged(len(t.IKEProposals) > 0, "ike "+list(t.IKEProposals)), flagged(len(t.ESPProposals) > 0, "esp "+list(t.ESPProposals)))
		for _, r := range t.Peers {
			p.line("  peer", r.Name, "id", r.ID, "endpoint", r.Endpoint, "secret", r.SecretFile, "prefixes", list(r.Prefixes))
		}
		p.routes(t.Routes)
	}
}

func (p *printer) routes(routes []path.Route) {
	for _, r := range routes {
		p.line("  route", r.Prefix, number("metric", r.Metric), number("table", r.Table))
	}
}

func (p *printer) xdp(s xdp.State) {
	for _, i := range s.Interfaces {
		fail := "closed"
		if i.FailOpen {
			fail = "open"
		}
		p.line("interface", i.Name, "mode", i.Mode, "fail", fail)
	}
	var names []string // TestBothObjectsJudgeTheSamePolicies: what they are stands under tc
	for _, policy := range s.Generation.Policies() {
		names = append(names, policy.Name)
	}
	p.line("policies", list(names), "flows", s.Generation.FlowSlots)
	p.limiters(s.Generation.Limiters)
}

func (p *printer) tc(s tc.State) {
	for _, i := range s.Interfaces {
		p.line("interface", i.Name, i.Role, flagged(i.Judge, "judge"), flagged(i.ClampMSS, "clamp"), flagged(i.FQ, "fq"), flagged(i.SNAT.IPv4, "snat4"), flagged(i.SNAT.IPv6, "snat6"),
			flagged(i.SNAT.All, "all"), number("to", int(i.SNAT.Address)))
	}
	g := s.Generation
	for i, a := range g.SNATAddresses {
		p.line("snat address", i+1, flagged(a.IPv4.IsValid(), a.IPv4.String()), flagged(a.IPv6.IsValid(), a.IPv6.String()))
	}
	if g.SNATPorts.Last != 0 {
		p.line("snat ports", fmt.Sprintf("%d-%d", g.SNATPorts.First, g.SNATPorts.Last), "announced", list(g.Announced))
	}
	p.line("self", list(g.Self))
	p.line("flows", g.FlowSlots)
	p.line("strict", list(g.Strict))
	for _, o := range g.OnLink {
		p.line("  but", o.Prefix, "at", o.Interface)
	}
	for _, paced := range g.Paced {
		p.line("paced", paced.Interface, paced.Rate, "bps")
	}
	for from := range g.Matrix {
		for to, may := range g.Matrix[from] {
			if may {
				p.line("forward", tc.Role(from), "to", tc.Role(to))
			}
		}
	}
	for _, w := range g.Workloads {
		p.line("workload", w.Name, "at", w.Interface, list(w.Addresses))
	}
	p.limiters(g.Limiters)
	p.policies(g.Policies(), g.Self)
}

// policies write "self" for the list of the box's own addresses.
func (p *printer) policies(all []classify.Policy, addrs []netip.Addr) {
	own := classify.Rule{From: hostPrefixes(addrs), Protocol: classify.AnyProtocol}
	self := strings.TrimPrefix(own.Match(), "from ")
	for _, policy := range all {
		p.line("policy", policy.Name, "default", policy.Default, number("fragments", int(policy.Fragments)))
		for _, r := range policy.Rules {
			p.line("  rule", r.ID, r.Name, r.Action, flagged(r.Shadow, "shadow"), flagged(r.Sample != 0, fmt.Sprintf("sample %d", r.Sample)), strings.ReplaceAll(r.Match(), self, "self"))
		}
	}
}

// limiters stand by the index that rules name.
func (p *printer) limiters(all []classify.Limiter) {
	for i, l := range all {
		unit, burst := "pps", "p"
		if l.Bits {
			unit, burst = "bps", "B"
		}
		p.line("limiter", i, "rule", l.Rule, "beyond", l.Beyond, fmt.Sprintf("rate %d%s burst %d%s", l.Rate, unit, l.Burst, burst),
			flagged(l.PerSource, fmt.Sprintf("per source /%d /%d", l.IPv4Bits, l.IPv6Bits)))
	}
}

func limitText(l bgp.PrefixLimit) string {
	return flagged(l.Max > 0, fmt.Sprintf("max %d warn at %d%%%s%s", l.Max, l.WarnAt, flagged(l.Warn, " only"),
		flagged(l.RestartAfter > 0, " restart after "+l.RestartAfter.String())))
}

func (p *printer) bgp(s bgp.State) {
	if s.ASN == 0 {
		return
	}
	p.line("asn", s.ASN, "router id", s.RouterID, "port", s.Port)
	for _, n := range s.Neighbors {
		p.line("neighbor", n.Name, n.Address, "port", n.Port, "asn", n.ASN, flagged(n.IPv4, "ipv4"), flagged(n.IPv6, "ipv6"),
			flagged(n.PasswordFile != "", "password "+n.PasswordFile), "hold", n.HoldTime,
			flagged(n.RestartTime != 0, "restart "+n.RestartTime.String()), limitText(n.Limit), flagged(n.Keepalive != 0, "keepalive "+n.Keepalive.String()), flagged(n.ConnectRetry != 2*time.Second, "retry "+n.ConnectRetry.String()),
			flagged(n.Passive, "passive"), number("multihop", int(n.Multihop)), number("ttl security", int(n.TTLSecurity)),
			flagged(n.Shutdown, fmt.Sprintf("shutdown %q", n.Reason)),
			flagged(n.LocalAddress.IsValid(), "from "+n.LocalAddress.String()),
			flagged(n.NextHop4.IsValid(), "nexthop4 "+n.NextHop4.String()), flagged(n.NextHop6.IsValid(), "nexthop6 "+n.NextHop6.String()))
	}
	for _, b := range s.BFD {
		p.line("bfd", b.Peer, "every", b.MinTx, "x", b.Multiplier)
	}
	for _, path := range s.Paths {
		med := ""
		if path.MED != nil {
			med = fmt.Sprint("med ", *path.MED)
		}
		p.line("path", path.Prefix, flagged(path.To != nil, "to "+list(path.To)), flagged(len(path.Communities) > 0, "communities "+list(path.Communities)),
			flagged(len(path.LargeCommunities) > 0, "large "+list(path.LargeCommunities)), number("preference", path.LocalPreference), med,
			number("prepend", path.Prepend), flagged(path.NextHop.IsValid(), "next hop "+path.NextHop.String()))
	}
	p.line("learn ecmp", s.Learn.ECMP, "metric", s.Learn.Metric, number("table", s.Learn.Table))
	p.filters("reject", s.Learn.Reject)
	p.filters("accept", s.Learn.Accept)
	for _, t := range s.Learn.Tunnels {
		p.line("  beside tunnel", t.Device, flagged(len(t.Strict) > 0, "strict "+list(t.Strict)), "to "+list(t.Endpoints))
	}
}

func (p *printer) filters(word string, filters []bgp.Filter) {
	for _, f := range filters {
		p.line("  "+word, flagged(f.Prefix.IsValid(), fmt.Sprint(f.Prefix, " ", f.GE, " to ", f.LE)), flagged(f.From != nil, "from "+list(f.From)),
			flagged(f.ASPath != "", "path "+f.ASPath), flagged(len(f.Communities) > 0, "communities "+list(f.Communities)),
			flagged(len(f.LargeCommunities) > 0, "large "+list(f.LargeCommunities)), number("preference", f.LocalPreference))
	}
}

func (p *printer) node(s node.State) {
	if s.HostName != "" {
		p.line("host name", s.HostName)
	}
	for _, a := range s.DNS {
		p.line("dns", a)
	}
	for _, a := range s.NTP {
		p.line("ntp", a)
	}
	if s.SSH != nil {
		p.line("ssh", s.SSH, s.SSH.From)
		for _, k := range s.SSH.Keys {
			p.line("  key", k)
		}
	}
	if s.Console != nil {
		p.line("console login", s.Console.HashFile)
	}
}
