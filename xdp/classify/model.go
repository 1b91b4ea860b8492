package classify

import (
	"net/netip"
	"slices"
)

// Judge is the reference model: rule after rule, condition after condition, as the documentation tells it. It shares
// nothing with Compile and Eval, and every fast path is checked against it.
func Judge(policy Policy, p Packet) Decision {
	d, _ := walk(policy, p)
	return d
}

// Passed is a rule that a policy passed over before it decided, and why.
type Passed struct {
	ID   uint32
	Rule string // its name
	Why  string // "from does not contain 192.0.2.7"
}

// PassedOver returns the rules before the one that decided, or all of them where none did.
func PassedOver(policy Policy, p Packet) []Passed {
	_, n := walk(policy, p)
	var out []Passed
	for _, r := range policy.Rules[:n] {
		o := test(r, p)
		out = append(out, Passed{r.ID, r.Name, explain(o, r, p)})
	}
	return out
}

// walk returns the decision, and how many rules were passed over before it.
func walk(policy Policy, p Packet) (Decision, int) {
	if p.Fragment && policy.Fragments == FragDrop {
		return Decision{Action: Drop, Reason: ByFragmentRule}, 0
	}
	var shadows []uint32
	for i, r := range policy.Rules {
		switch o := test(r, p); {
		case o == allTrue && r.Shadow:
			shadows = append(shadows, r.ID)
		case o == allTrue:
			return Decision{Action: r.Action, Reason: ByRule, Rule: r.ID, Shadows: shadows}, i
		case o == portsHidden && !r.Shadow && policy.Default != Continue:
			if policy.Fragments == FragAccept {
				return Decision{Action: Accept, Reason: ByFragmentRule, Shadows: shadows}, i
			}
			return Decision{Action: policy.Default, Reason: ByFragment, Shadows: shadows}, i
		}
	}
	return Decision{Action: policy.Default, Reason: ByDefault, Shadows: shadows}, len(policy.Rules)
}

// obstacle is the first condition of a rule that a packet does not meet.
type obstacle int

const (
	allTrue obstacle = iota
	notInFrom
	inNotFrom
	notInTo
	inNotTo
	otherProtocol
	otherInterface
	otherVLAN
	otherLength
	otherDSCP
	otherTTL
	otherFragment
	noSuchPort   // an empty list
	noSuchICMP   // an empty list
	portsHidden  // the rest holds, and the transport header of a later fragment cannot be seen
	otherFlags   // of TCP
	hasNoICMP    // or of the other family
	otherICMP    // type or code
	hasNoPorts   // the protocol has none
	otherPort    // destination
	otherSrcPort // source
)

func test(r Rule, p Packet) obstacle {
	switch {
	case r.From != nil && !contains(r.From, p.Src):
		return notInFrom
	case contains(r.NotFrom, p.Src):
		return inNotFrom
	case r.To != nil && !contains(r.To, p.Dst):
		return notInTo
	case contains(r.NotTo, p.Dst):
		return inNotTo
	case r.Protocol != AnyProtocol && r.Protocol != int(p.Protocol):
		return otherProtocol
	}
	if o := testRest(r, p); o != allTrue {
		return o
	}
	return testTransport(r, p)
}

// testRest asks for what every fragment shows.
func testRest(r Rule, p Packet) obstacle {
	switch {
	case r.Interfaces != nil && !slices.ContainsFunc(r.Interfaces, func(i Interface) bool { return i.Index != 0 && i.Index == p.Ifindex }):
		return otherInterface
	case r.VLANs != nil && !inRanges(r.VLANs, p.VLAN):
		return otherVLAN
	case r.Lengths != nil && !inRanges(r.Lengths, uint16(min(p.Length, 65535))):
		return otherLength
	case r.DSCP != 0 && r.DSCP&(1<<p.DSCP) == 0:
		return otherDSCP
	case r.TTL != 0 && r.TTL != p.TTL:
		return otherTTL
	case r.Fragment == FragmentNo && p.Fragment,
		r.Fragment == FragmentYes && !p.Fragment,
		r.Fragment == FragmentInitial && (!p.Fragment || p.NonFirst),
		r.Fragment == FragmentLater && !p.NonFirst:
		return otherFragment
	}
	return allTrue
}

// testTransport asks for what a later fragment hides.
func testTransport(r Rule, p Packet) obstacle {
	switch {
	case r.Ports == nil && r.SourcePorts == nil && r.TCPMask == 0 && r.ICMPTypes == nil:
		return allTrue
	case r.ICMPTypes != nil && len(r.ICMPTypes) == 0:
		return noSuchICMP
	case r.Ports != nil && len(r.Ports) == 0, r.SourcePorts != nil && len(r.SourcePorts) == 0:
		return noSuchPort
	case p.NonFirst:
		return portsHidden
	case p.TCPFlags&r.TCPMask != r.TCPFlags:
		return otherFlags
	case r.ICMPTypes != nil && !p.HasICMP:
		return hasNoICMP
	case r.ICMPTypes != nil && !hasICMP(r.ICMPTypes, p.ICMPType, p.ICMPCode):
		return otherICMP
	case r.Ports == nil && r.SourcePorts == nil:
		return allTrue
	case !p.HasPorts:
		return hasNoPorts
	case r.Ports != nil && !inRanges(r.Ports, p.DstPort):
		return otherPort
	case r.SourcePorts != nil && !inRanges(r.SourcePorts, p.SrcPort):
		return otherSrcPort
	}
	return allTrue
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func inRanges(ranges []Range, n uint16) bool {
	for _, r := range ranges {
		if r.First <= n && n <= r.Last {
			return true
		}
	}
	return false
}

func hasICMP(ranges []ICMPRange, kind, code uint8) bool {
	for _, r := range ranges {
		if r.TypeFirst <= kind && kind <= r.TypeLast && r.CodeFirst <= code && code <= r.CodeLast {
			return true
		}
	}
	return false
}
