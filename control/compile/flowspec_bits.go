package compile

import (
	"fmt"

	"sluice/bgp/flowspec"
	"sluice/xdp/classify"
)

// flowSpecFlags are cubes that together are the flag octets of a rule. XDP sees octet 14 of the TCP header alone.
func flowSpecFlags(rule flowspec.Rule) ([]flagCube, error) {
	c, named := rule.Component(flowspec.TCPFlags)
	if !named {
		return []flagCube{{}}, nil
	}
	var holds [256]bool
	for flags := range uint64(256) {
		holds[flags] = c.Holds(flags)
		for high := uint64(1); high < 16; high++ {
			if c.Holds(high<<8|flags) != holds[flags] {
				return nil, fmt.Errorf("XDP does not look at the bits beside the data offset: %s", c)
			}
		}
	}
	return cubes(&holds, flagCube{}, map[flagCube][]flagCube{}), nil
}

// cubes cuts what holds within a cube into few cubes: along the flag that leaves the fewest on both sides.
func cubes(holds *[256]bool, within flagCube, known map[flagCube][]flagCube) []flagCube {
	if out, ok := known[within]; ok {
		return out
	}
	some, all := false, true
	for flags, is := range holds {
		if uint8(flags)&within.mask == within.value {
			some, all = some || is, all && is
		}
	}
	var best []flagCube
	switch {
	case some && all:
		best = []flagCube{within}
	case some:
		for flag := uint8(1); flag != 0; flag <<= 1 {
			if within.mask&flag != 0 {
				continue
			}
			clear, set := flagCube{within.mask | flag, within.value}, flagCube{within.mask | flag, within.value | flag}
			a, b := cubes(holds, clear, known), cubes(holds, set, known)
			if best == nil || len(a)+len(b) < len(best) {
				best = append(append([]flagCube{}, a...), b...)
			}
		}
	}
	known[within] = best
	return best
}

// flowSpecFragments says a fragment component in the classifier's kinds. transport: another component asks for the
// transport header, which later fragments do not have.
func flowSpecFragments(rule flowspec.Rule, transport bool) ([]classify.FragmentMatch, error) {
	c, named := rule.Component(flowspec.Fragment)
	if !named {
		return []classify.FragmentMatch{classify.FragmentAny}, nil
	}
	const middle, last = flowspec.IsFragment, flowspec.IsFragment | flowspec.LastFragment
	for _, bits := range []uint64{0, flowspec.FirstFragment, middle, last} {
		if rule.Family == flowspec.IPv4 && c.Holds(bits) != c.Holds(bits|flowspec.DontFragment) {
			return nil, fmt.Errorf("XDP does not look at the flag \"don't fragment\": %s", c)
		}
	}
	whole, first, later := c.Holds(0), c.Holds(flowspec.FirstFragment), c.Holds(middle) && !transport
	if !transport && c.Holds(middle) != c.Holds(last) {
		return nil, fmt.Errorf("XDP does not tell the last fragment from those in the middle: %s", c)
	}
	switch {
	case whole && first && (later || transport):
		return []classify.FragmentMatch{classify.FragmentAny}, nil
	case first && later:
		return []classify.FragmentMatch{classify.FragmentYes}, nil
	}
	out := []classify.FragmentMatch{}
	for i, is := range []bool{whole, first, later} {
		if is {
			out = append(out, []classify.FragmentMatch{classify.FragmentNo, classify.FragmentInitial, classify.FragmentLater}[i])
		}
	}
	return out, nil
}
