package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"sluice/tests/bench/lane"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

// Kind is what entries are.
type Kind string

// The kinds. Prefixes: one list of them that is dropped. Rules: drop rules of ClassBench's ACL shape, one for one.
const (
	Prefixes Kind = "prefixes"
	Rules    Kind = "rules"
)

// Side is one of two lists that a box may hold.
type Side int

// The sides. A prefix of the one and a prefix of the other never overlap: their first bytes are even, or odd.
const (
	Even Side = iota
	Odd
)

// Addresses that tell lists apart: common is on both sides, nobody on none, and those that are added later are of extra.
var (
	common = netip.MustParsePrefix("192.0.2.0/24")
	nobody = netip.MustParsePrefix("198.51.100.0/24")
	extra  = netip.MustParsePrefix("203.0.113.0/24")
)

// newList makes n prefixes in the mix of large blocklists, and the first addresses of common are among them.
func newList(side Side, n int) []netip.Prefix {
	var out []netip.Prefix
	for a := common.Addr(); len(out) < min(n/2, keysOfProbe); a = a.Next() {
		out = append(out, netip.PrefixFrom(a, 32))
	}
	rng := rand.New(rand.NewPCG(uint64(side), uint64(n)))
	mixed := slices.DeleteFunc(classifytest.Blocklist4(rng, 2*n+n/4+256), func(p netip.Prefix) bool {
		return special(p) || p.Addr().As4()[0]%2 != byte(side)
	})
	rng.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	return append(out, mixed[:n-len(out)]...)
}

// outermost leaves out prefixes that lie in another one: nft refuses overlapping intervals, and merging them changes no
// verdict.
func outermost(list []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range slices.SortedFunc(slices.Values(list), netip.Prefix.Compare) { // what holds others first
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// special are addresses that a kernel does not forward from whatever its lists say, or that have a use here.
func special(p netip.Prefix) bool {
	return slices.ContainsFunc([]netip.Prefix{
		common, nobody, extra, lane.Inside, netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"), netip.MustParsePrefix("0.0.0.0/8"),
	}, p.Overlaps)
}

// newRules makes n drop rules.
func newRules(n int) []classify.Rule {
	rules := classifytest.Rules(rand.New(rand.NewPCG(3, uint64(n))), classifytest.ACL, n)
	for i := range rules {
		rules[i].Name, rules[i].Action = fmt.Sprintf("r%d", i), classify.Drop
	}
	return rules
}

// sluiceHead is the file of a box that stands in a lane; its policy follows.
func sluiceHead() string {
	return fmt.Sprintf(`interfaces:
  - {name: %s, role: uplink, addresses: [%s], xdp: {mode: native}}
  - {name: %s, role: downstream, addresses: [%s]}
`, lane.Uplink, lane.UplinkAddress, lane.Downlink, lane.DownlinkAddress)
}

// sluiceList is the file that drops the list of listed.netset.
func sluiceList() []byte {
	return []byte(sluiceHead() + listPolicy)
}

const listPolicy = `sets: [{name: listed, files: [listed.netset]}]
policy:
  ingress:
    default: accept
    rules: [{name: listed, from: [listed], action: drop}]
`

// netset is a list, a prefix a line.
func netset(list []netip.Prefix) []byte {
	var b strings.Builder
	for _, p := range list {
		fmt.Fprintln(&b, p)
	}
	return []byte(b.String())
}

// sluiceRules is the file that has rules.
func sluiceRules(rules []classify.Rule) []byte {
	var b strings.Builder
	b.WriteString(sluiceHead() + "policy:\n  ingress:\n    default: accept\n    rules:\n")
	for _, r := range rules {
		fmt.Fprintf(&b, "      - {name: %s", r.Name)
		for _, side := range []struct {
			key  string
			list []netip.Prefix
		}{{"from", r.From}, {"to", r.To}} {
			if side.list != nil {
				fmt.Fprintf(&b, ", %s: [%s]", side.key, side.list[0])
			}
		}
		if r.Protocol != classify.AnyProtocol {
			fmt.Fprintf(&b, ", protocol: %s", protocols[r.Protocol])
		}
		if r.Ports != nil {
			fmt.Fprintf(&b, ", ports: [%d-%d]", r.Ports[0].First, r.Ports[0].Last)
		}
		b.WriteString(", action: drop}\n")
	}
	return []byte(b.String())
}

var protocols = map[int]string{6: "tcp", 17: "udp"}

// iptablesRules is what iptables-restore reads.
func iptablesRules(rules []classify.Rule) string {
	var b strings.Builder
	b.WriteString("*filter\n:FORWARD ACCEPT [0:0]\n")
	for _, r := range rules {
		b.WriteString("-A FORWARD")
		if r.From != nil {
			fmt.Fprintf(&b, " -s %s", r.From[0])
		}
		if r.To != nil {
			fmt.Fprintf(&b, " -d %s", r.To[0])
		}
		if r.Protocol != classify.AnyProtocol {
			fmt.Fprintf(&b, " -p %s", protocols[r.Protocol])
		}
		if r.Ports != nil {
			fmt.Fprintf(&b, " --dport %d:%d", r.Ports[0].First, r.Ports[0].Last)
		}
		b.WriteString(" -j DROP\n")
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// ipsetAdds are lines of ipset restore that make a set.
func ipsetAdds(set string, list []netip.Prefix) string {
	var b strings.Builder
	fmt.Fprintf(&b, "create %s hash:net family inet hashsize 1024 maxelem %d\n", set, max(65536, 2*len(list)))
	for _, p := range list {
		fmt.Fprintf(&b, "add %s %s\n", set, p)
	}
	return b.String()
}

// nftElements are a list as nft reads it.
func nftElements(list []netip.Prefix) string {
	list = outermost(list)
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return "{\n" + strings.Join(texts, ",\n") + "\n}\n"
}

// keysOfProbe is how many addresses the frames of a probe come from, in turn.
const keysOfProbe = 64

// sources are addresses that a change from one list to another, or the addition of a prefix, judges as the probe says. A
// list has its common addresses first.
func sources(p probe, before, after []netip.Prefix) (out []netip.Addr) {
	from := map[probe][]netip.Prefix{listed: before, removed: before, added: after}[p]
	if p == unlisted {
		for a := nobody.Addr(); len(out) < keysOfProbe; a = a.Next() {
			out = append(out, a)
		}
		return out
	}
	for _, l := range from {
		if common.Overlaps(l) == (p == listed) && len(out) < keysOfProbe {
			out = append(out, l.Addr())
		}
	}
	return out
}
