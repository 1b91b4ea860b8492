package classify

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
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
	otherTTL
	noSuchPort   // an empty list
	portsHidden  // the rest holds, and the ports of a later fragment cannot be seen
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
	case r.TTL != 0 && r.TTL != p.TTL:
		return otherTTL
	case r.Ports == nil && r.SourcePorts == nil:
		return allTrue
	case r.Ports != nil && len(r.Ports) == 0, r.SourcePorts != nil && len(r.SourcePorts) == 0:
		return noSuchPort
	case p.NonFirst:
		return portsHidden
	case !p.HasPorts:
		return hasNoPorts
	case r.Ports != nil && !hasPort(r.Ports, p.DstPort):
		return otherPort
	case r.SourcePorts != nil && !hasPort(r.SourcePorts, p.SrcPort):
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

func hasPort(ranges []PortRange, port uint16) bool {
	for _, r := range ranges {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}

func explain(o obstacle, r Rule, p Packet) string {
	switch o {
	case notInFrom:
		return fmt.Sprintf("from does not contain %s", p.Src)
	case inNotFrom:
		return fmt.Sprintf("not_from contains %s", p.Src)
	case notInTo:
		return fmt.Sprintf("to does not contain %s", p.Dst)
	case inNotTo:
		return fmt.Sprintf("not_to contains %s", p.Dst)
	case otherProtocol:
		return fmt.Sprintf("protocol is %s, not %s", protocolName(r.Protocol), protocolName(int(p.Protocol)))
	case otherTTL:
		return fmt.Sprintf("ttl is %d, not %d", r.TTL, p.TTL)
	case noSuchPort:
		return "its list of ports is empty"
	case portsHidden:
		return "a later fragment does not show its ports"
	case hasNoPorts:
		return fmt.Sprintf("it asks for ports, and %s has none", protocolName(int(p.Protocol)))
	case otherPort:
		return fmt.Sprintf("port %d is not in %s", p.DstPort, portList(r.Ports))
	case otherSrcPort:
		return fmt.Sprintf("source port %d is not in %s", p.SrcPort, portList(r.SourcePorts))
	}
	return "shadow: counted only"
}

// portList writes ranges as the file does: 80,443,8000-8999.
func portList(ranges []PortRange) string {
	var out []string
	for _, r := range ranges {
		s := strconv.Itoa(int(r.First))
		if r.Last != r.First {
			s += "-" + strconv.Itoa(int(r.Last))
		}
		out = append(out, s)
	}
	return strings.Join(out, ",")
}

// protocolName writes an IP protocol as the file does, or as its number.
func protocolName(protocol int) string {
	switch protocol {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 47:
		return "gre"
	case 50:
		return "esp"
	case 58:
		return "icmpv6"
	case 132:
		return "sctp"
	}
	return strconv.Itoa(protocol)
}
