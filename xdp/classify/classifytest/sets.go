package classifytest

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"

	"sluice/xdp/classify"
)

// Blocklist4 returns n distinct prefixes, sorted, as large blocklists have them: 60 % /32, 28 % /24, the rest /16 to /28.
func Blocklist4(rng *rand.Rand, n int) []netip.Prefix {
	return distinct(n, func() netip.Prefix {
		bits := 32
		switch at := rng.IntN(100); {
		case at >= 88:
			bits = 16 + rng.IntN(13)
		case at >= 60:
			bits = 24
		}
		return netip.PrefixFrom(Addr4(rng), bits).Masked()
	})
}

// Outermost leaves out prefixes that lie in another one, which changes no verdict of a list: nftables refuses them. The rest
// is sorted.
func Outermost(list []netip.Prefix) []netip.Prefix {
	sorted := slices.SortedFunc(slices.Values(list), func(a, b netip.Prefix) int {
		return a.Addr().Compare(b.Addr())*256 + a.Bits() - b.Bits()
	})
	var out []netip.Prefix
	for _, p := range sorted {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// Blocklist6 returns n distinct prefixes of /32 to /128, sorted.
func Blocklist6(rng *rand.Rand, n int) []netip.Prefix {
	return distinct(n, func() netip.Prefix {
		return netip.PrefixFrom(Addr6(rng), 32+rng.IntN(97)).Masked()
	})
}

func distinct(n int, next func() netip.Prefix) []netip.Prefix {
	seen := make(map[netip.Prefix]bool, n)
	out := make([]netip.Prefix, 0, n)
	for len(out) < n {
		if p := next(); !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// Addr4 returns any unicast address.
func Addr4(rng *rand.Rand) netip.Addr {
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], rng.Uint32())
	raw[0] = 1 + raw[0]%223
	return netip.AddrFrom4(raw)
}

// Addr6 returns any address of 2000::/3.
func Addr6(rng *rand.Rand) netip.Addr {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:], rng.Uint64()>>3|1<<61)
	binary.BigEndian.PutUint64(raw[8:], rng.Uint64())
	return netip.AddrFrom16(raw)
}

// Shape is one of ClassBench's kinds of rule set (Taylor and Turner, 2007), or one of our own.
type Shape string

// The shapes. ACL: hosts and networks to servers, one port. FW: many wildcards, port ranges on both sides. IPC: pairs of
// hosts and networks, any kind of port. Nested: prefixes of random length within one /8, on both sides.
const (
	ACL    Shape = "acl"
	FW     Shape = "fw"
	IPC    Shape = "ipc"
	Nested Shape = "nested"
)

// Shapes are all of them.
var Shapes = []Shape{ACL, FW, IPC, Nested}

// shape holds, in percent, what a rule of it is made of.
type shape struct {
	anySrc, anyDst   int
	src, dst         []int // lengths, each as likely
	exact, portRange int   // destination ports; the rest any
	sources          int   // with source ports
	tcp, udp         int   // the rest any protocol
}

var shapes = map[Shape]shape{
	ACL:    {10, 1, []int{32, 32, 32, 32, 24, 24, 21, 16}, []int{32, 32, 32, 32, 32, 30, 28, 24}, 65, 20, 0, 80, 15},
	FW:     {15, 8, []int{32, 32, 24, 24, 16}, []int{32, 32, 32, 24, 24, 20}, 45, 35, 30, 65, 25},
	IPC:    {2, 2, []int{32, 32, 32, 30, 28, 24, 20}, []int{32, 32, 32, 30, 28, 24, 20}, 45, 15, 15, 55, 30},
	Nested: {0, 0, lengths(9, 32), lengths(9, 32), 50, 20, 5, 70, 20},
}

func lengths(first, last int) []int {
	var out []int
	for n := first; n <= last; n++ {
		out = append(out, n)
	}
	return out
}

// Rules returns n rules of a shape for IPv4. Prefixes come from pools that grow with n, so that they repeat and nest as
// those of a site do. Ids count from 1.
func Rules(rng *rand.Rand, of Shape, n int) []classify.Rule {
	g, s := &generator{rng: rng}, shapes[of]
	pools := [2][]netip.Prefix{g.pools(s.src, n), g.pools(s.dst, n)}
	rules := make([]classify.Rule, n)
	for i := range rules {
		r := &rules[i]
		*r = classify.Rule{ID: uint32(i + 1), Name: "r", Protocol: classify.AnyProtocol, Action: classify.Action(1 + rng.IntN(2))}
		anySrc := g.chance(s.anySrc)
		if !anySrc {
			r.From = []netip.Prefix{pools[0][rng.IntN(len(pools[0]))]}
		}
		if anySrc || !g.chance(s.anyDst) {
			r.To = []netip.Prefix{pools[1][rng.IntN(len(pools[1]))]}
		}
		switch at := rng.IntN(100); {
		case at < s.tcp:
			r.Protocol = 6
		case at < s.tcp+s.udp:
			r.Protocol = 17
		default:
			continue
		}
		switch at := rng.IntN(100); {
		case at < s.exact:
			r.Ports = onePort([]int{22, 25, 53, 80, 123, 161, 443, 1433, 3306, 8080, rng.IntN(65536)}[rng.IntN(11)])
		case at < s.exact+s.portRange:
			first := rng.IntN(60000)
			r.Ports = []classify.PortRange{{First: uint16(first), Last: uint16(first + rng.IntN(5000))}}
		}
		if g.chance(s.sources) {
			r.SourcePorts = []classify.PortRange{{First: 1024, Last: 65535}}
		}
	}
	return rules
}

func onePort(p int) []classify.PortRange {
	return []classify.PortRange{{First: uint16(p), Last: uint16(p)}}
}

// pools returns prefixes of the lengths within 10.0.0.0/8, half of them in an earlier one.
func (g *generator) pools(lengths []int, n int) []netip.Prefix {
	var out []netip.Prefix
	for range max(4, n/2) {
		base := netip.MustParsePrefix("10.0.0.0/8")
		bits := lengths[g.rng.IntN(len(lengths))]
		if len(out) > 0 && g.chance(50) {
			if around := out[g.rng.IntN(len(out))]; around.Bits() <= bits {
				base = around
			}
		}
		out = append(out, netip.PrefixFrom(g.within(base), bits).Masked())
	}
	return out
}
