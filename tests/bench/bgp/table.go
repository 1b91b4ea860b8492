package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
)

// table is what every neighbor announces: prefixes with the attributes of a full table, as far as they cost something. Of those on the
// Internet about five share a path, which has two to five ASes behind the neighbor's, and most carry communities.
type table []netip.Prefix

const sharePath = 5

// newTable has /24s, two of three left out, from 1.0.0.0 on.
func newTable(routes int) table {
	out := make(table, routes)
	for i := range out {
		at := uint32(1)<<24 + uint32(i)*3<<8
		out[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(at >> 24), byte(at >> 16), byte(at >> 8), 0}), 24)
	}
	return out
}

// write writes it as static routes of BIRD, the same each time.
func (t table) write(w io.Writer) error {
	rng := rand.New(rand.NewPCG(1, 1))
	attributes := ""
	for i, prefix := range t {
		if i%sharePath == 0 {
			attributes = ""
			for range 2 + rng.IntN(4) {
				attributes += fmt.Sprintf("bgp_path.prepend(%d);", 100_000+rng.IntN(300_000)) // none is a neighbor's or our own: that would be a loop
			}
			attributes += fmt.Sprintf("bgp_community.add((%d,%d));", 1+rng.IntN(64_000), rng.IntN(1000))
		}
		if _, err := fmt.Fprintf(w, "route %s blackhole { %s };\n", prefix, attributes); err != nil {
			return err
		}
	}
	return nil
}

// probes are so many prefixes of it, in a random order.
func (t table) probes(n int) []netip.Prefix {
	rng := rand.New(rand.NewPCG(2, 2))
	var out []netip.Prefix
	for _, i := range rng.Perm(len(t))[:min(n, len(t))] {
		out = append(out, t[i])
	}
	return out
}
