package classify

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// How conditions read: in the words of the file, and, of one that a packet does not meet, as an answer.

// IP protocol numbers (IANA) that conditions depend on.
const (
	protocolICMP   = 1
	protocolTCP    = 6
	protocolICMPv6 = 58
)

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
	case noSuchPort:
		return "its list of ports is empty"
	case hasNoPorts:
		return fmt.Sprintf("it asks for ports, and %s has none", protocolName(int(p.Protocol)))
	case otherPort:
		return fmt.Sprintf("port %d is not in %s", p.DstPort, portList(r.Ports))
	case otherSrcPort:
		return fmt.Sprintf("source port %d is not in %s", p.SrcPort, portList(r.SourcePorts))
	}
	return explainRest(o, r, p)
}

// explainRest is about conditions beside addresses, protocol and ports.
func explainRest(o obstacle, r Rule, p Packet) string {
	switch o {
	case otherInterface:
		return "its interface is not in " + interfaceList(r.Interfaces)
	case otherVLAN:
		return fmt.Sprintf("vlan %s is not in %s", vlanText(p.VLAN), vlanList(r.VLANs))
	case otherLength:
		return fmt.Sprintf("length %d is not in %s", p.Length, portList(r.Lengths))
	case otherDSCP:
		return fmt.Sprintf("dscp %d is not in %s", p.DSCP, dscpList(r.DSCP))
	case otherTTL:
		return fmt.Sprintf("ttl is %d, not %d", r.TTL, p.TTL)
	case otherFragment:
		return fmt.Sprintf("fragment is %s, and the packet is %s", r.Fragment, fragmentText(p))
	case noSuchICMP:
		return "its list of ICMP types is empty"
	case portsHidden:
		return "a later fragment does not show its " + hiddenText(r)
	case otherFlags:
		return fmt.Sprintf("tcp flags are %s, not %s", flagLetters(p.TCPFlags), flagList(r.TCPMask, r.TCPFlags))
	case hasNoICMP:
		return "it asks for ICMP types, and " + protocolName(int(p.Protocol)) + " has none that can be read"
	case otherICMP:
		return fmt.Sprintf("icmp type %d/%d is not in %s", p.ICMPType, p.ICMPCode, icmpList(r.ICMPTypes))
	}
	return "shadow: counted only"
}

// restWords are the conditions beside addresses, protocol and ports, in the words of the file.
func restWords(r *Rule) []string {
	var words []string
	add := func(is bool, word, value string) {
		if is {
			words = append(words, word, value)
		}
	}
	add(r.TCPMask != 0, "tcp_flags", flagList(r.TCPMask, r.TCPFlags))
	add(len(r.ICMPTypes) > 0, "icmp_types", icmpList(r.ICMPTypes))
	add(r.Fragment != FragmentAny, "fragment", r.Fragment.String())
	add(len(r.VLANs) > 0, "vlan", vlanList(r.VLANs))
	add(len(r.Lengths) > 0, "length", portList(r.Lengths))
	add(r.DSCP != 0, "dscp", dscpList(r.DSCP))
	add(r.TTL != 0, "ttl", strconv.Itoa(int(r.TTL)))
	add(r.Interfaces != nil, "interfaces", interfaceList(r.Interfaces))
	return words
}

func interfaceList(list []Interface) string {
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return strings.Join(names, ",")
}

func vlanText(id uint16) string {
	if id == 0 {
		return "untagged"
	}
	return strconv.Itoa(int(id))
}

func vlanList(list []Range) string {
	var out []string
	for _, r := range list {
		s := vlanText(r.First)
		if r.Last != r.First {
			s += "-" + strconv.Itoa(int(r.Last))
		}
		out = append(out, s)
	}
	return strings.Join(out, ",")
}

func dscpList(set uint64) string {
	var out []string
	for ; set != 0; set &= set - 1 {
		out = append(out, strconv.Itoa(bits.TrailingZeros64(set)))
	}
	return strings.Join(out, ",")
}

// String gives the word of the file.
func (f FragmentMatch) String() string {
	return [...]string{"any", "whole", "fragmented", "first", "later"}[f]
}

func fragmentText(p Packet) string {
	switch {
	case p.NonFirst:
		return "a later one"
	case p.Fragment:
		return "the first one"
	}
	return "whole"
}

// hiddenText names what a rule asks for and a later fragment does not show.
func hiddenText(r Rule) string {
	switch {
	case r.ICMPTypes != nil:
		return "ICMP type"
	case r.Ports == nil && r.SourcePorts == nil:
		return "TCP flags"
	}
	return "ports"
}

var flagNames = [8]string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"} // bit 0 first

// flagLetters gives the flags of a packet as tcpdump does: SA.
func flagLetters(flags uint8) string {
	var out []byte
	for bit, letter := range []byte("FSRPAUEW") {
		if flags>>bit&1 != 0 {
			out = append(out, letter)
		}
	}
	if out == nil {
		return "none"
	}
	return string(out)
}

// flagList writes what a rule asks for as the file does: syn,!ack.
func flagList(mask, flags uint8) string {
	var out []string
	for bit, name := range flagNames {
		switch {
		case mask>>bit&1 == 0:
		case flags>>bit&1 != 0:
			out = append(out, name)
		default:
			out = append(out, "!"+name)
		}
	}
	return strings.Join(out, ",")
}

// icmpList writes types as 8, types with a code as 3/4.
func icmpList(list []ICMPRange) string {
	span := func(first, last uint8) string {
		if first == last {
			return strconv.Itoa(int(first))
		}
		return fmt.Sprintf("%d-%d", first, last)
	}
	var out []string
	for _, r := range list {
		s := span(r.TypeFirst, r.TypeLast)
		if r.CodeFirst != 0 || r.CodeLast != 255 {
			s += "/" + span(r.CodeFirst, r.CodeLast)
		}
		out = append(out, s)
	}
	return strings.Join(out, ",")
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
	case protocolICMP:
		return "icmp"
	case protocolTCP:
		return "tcp"
	case 17:
		return "udp"
	case 47:
		return "gre"
	case 50:
		return "esp"
	case protocolICMPv6:
		return "icmpv6"
	case 132:
		return "sctp"
	case 136:
		return "udplite"
	}
	return strconv.Itoa(protocol)
}
