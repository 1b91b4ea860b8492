package flowspec

import (
	"fmt"
	"strings"
)

// String is the keyword of BIRD.
func (t Type) String() string {
	words := [...]string{Destination: "dst", Source: "src", Protocol: "proto", Port: "port", DestinationPort: "dport",
		SourcePort: "sport", ICMPType: "icmp type", ICMPCode: "icmp code", TCPFlags: "tcp flags", Length: "length",
		DSCP: "dscp", Fragment: "fragment", FlowLabel: "label"}
	if t >= Destination && int(t) < len(words) {
		return words[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// String is the rule in the words of BIRD, with the bitmasks of Junos:
// flow4 { dst 203.0.113.53/32; proto = 17; dport = 53 || >= 1024 && <= 2047; }
func (r Rule) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "flow%d {", uint8(r.Family))
	for _, c := range r.Components {
		fmt.Fprintf(&out, " %s;", c)
	}
	out.WriteString(" }")
	return out.String()
}

// String is the condition as it stands in a rule.
func (c Component) String() string {
	out := c.Type.String()
	switch {
	case c.Prefix.IsValid() && c.Offset > 0:
		return fmt.Sprintf("%s %s offset %d", out, c.Prefix, c.Offset)
	case c.Prefix.IsValid():
		return fmt.Sprintf("%s %s", out, c.Prefix)
	}
	for i, t := range c.Terms {
		switch {
		case i == 0:
			out += " "
		case t.Op&And != 0:
			out += " && "
		default:
			out += " || "
		}
		out += t.text(c.Type)
	}
	return out
}

func (t Term) text(of Type) string {
	switch of {
	case TCPFlags:
		return t.bits("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")
	case Fragment:
		return t.bits("dont-fragment", "is-fragment", "first-fragment", "last-fragment")
	}
	switch op := t.Op & (Less | Greater | Equal); op {
	case 0:
		return "false"
	case Less | Greater | Equal:
		return "true"
	default:
		words := [...]string{Equal: "=", Greater: ">", Greater | Equal: ">=", Less: "<", Less | Equal: "<=", Less | Greater: "!="}
		return fmt.Sprintf("%s %d", words[op], t.Value)
	}
}

// bits are the names of those that are asked for: "syn+ack" any of them, "=syn+ack" all, with a "!" in front: not so.
func (t Term) bits(names ...string) string {
	out := ""
	if t.Op&Not != 0 {
		out += "!"
	}
	if t.Op&AllBits != 0 {
		out += "="
	}
	var set []string
	rest := t.Value
	for i, name := range names {
		if rest&(1<<i) != 0 {
			set = append(set, name)
			rest &^= 1 << i
		}
	}
	if rest != 0 || len(set) == 0 {
		set = append(set, fmt.Sprintf("%#x", rest))
	}
	return out + strings.Join(set, "+")
}
