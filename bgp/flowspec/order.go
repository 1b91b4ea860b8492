package flowspec

import (
	"bytes"
	"cmp"
	"net/netip"
)

// Compare is negative where a is asked before b (RFC 8955 section 5.1, RFC 8956 section 4). Rules that compare equal are
// the same NLRI. IPv4 goes before IPv6, which no packet can tell.
func Compare(a, b Rule) int {
	if c := cmp.Compare(a.Family, b.Family); c != 0 {
		return c
	}
	for i := range max(len(a.Components), len(b.Components)) {
		switch {
		case i == len(a.Components): // a rule that says less comes later
			return 1
		case i == len(b.Components):
			return -1
		}
		if c := compareComponents(a.Components[i], b.Components[i], a.Family); c != 0 {
			return c
		}
	}
	return 0
}

func compareComponents(a, b Component, f Family) int {
	if c := cmp.Compare(a.Type, b.Type); c != 0 {
		return c
	}
	if a.Type.kind(f) == prefix {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), comparePrefixes(a.Prefix, b.Prefix))
	}
	x, y := a.marshal(nil, f), b.marshal(nil, f)
	common := min(len(x), len(y))
	return cmp.Or(bytes.Compare(x[:common], y[:common]), cmp.Compare(len(y), len(x))) // the longer first
}

// comparePrefixes puts the longer of two that overlap first, and else the lower.
func comparePrefixes(a, b netip.Prefix) int {
	if a.Overlaps(b) {
		return cmp.Compare(b.Bits(), a.Bits())
	}
	return a.Addr().Compare(b.Addr())
}
