package config

import (
	"slices"
	"strings"
)

// What a rule matches beside addresses, protocol and ports.

// tcpFlag is a flag that must be set, or with ! clear.
type tcpFlag struct {
	bit   uint8 // of byte 13 of the TCP header
	clear bool
}

func tcpFlagNames() []string {
	return []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"} // bit 0 first
}

func (f *tcpFlag) takes() takes { return text }
func (f *tcpFlag) describe() schema {
	all := tcpFlagNames()
	for _, name := range tcpFlagNames() {
		all = append(all, "!"+name)
	}
	return schema{"enum": all}
}
func (f *tcpFlag) parse(s string) problem {
	name, clear := strings.CutPrefix(s, "!")
	i := slices.Index(tcpFlagNames(), name)
	if i < 0 {
		p := bad("%q is not a TCP flag", s)
		switch near := nearest(strings.TrimSpace(name), tcpFlagNames()); {
		case near != "" && clear:
			return p.or("did you mean \"!%s\"?", near)
		case near != "":
			return p.or("did you mean %s?", near)
		}
		return p.or("write %s, or one of them as \"!syn\" where it must be clear", strings.Join(tcpFlagNames(), ", "))
	}
	f.bit, f.clear = 1<<i, clear
	return problem{}
}

// vlans is an id, a range of them, or untagged, which is 0: a tag with id 0 only says a priority (802.1Q section 6.9).
type vlans struct{ Range }

func (v *vlans) takes() takes { return text | integer }
func (v *vlans) describe() schema {
	return schema{"pattern": "^(untagged|[0-9]{1,4}-[0-9]{1,4})$", "minimum": 1, "maximum": maxVLAN}
}
func (v *vlans) parse(s string) (p problem) {
	switch s {
	case "untagged":
		return problem{}
	case "0", "none", "native":
		return bad("%s is not a VLAN id", quoteIfNotNumber(s)).or("write untagged")
	case "tagged", "any", "all":
		return bad("%q is not a VLAN id", s).or("write 1-%d", maxVLAN)
	}
	if near := nearest(s, []string{"untagged"}); near != "" {
		return bad("%q is not a VLAN id", s).or("did you mean %s?", near)
	}
	v.Range, p = parseRange(s, "a VLAN id", 1, maxVLAN)
	return p
}

const maxVLAN = 4094

// lengths is a number of bytes or a range of them, of the whole IP packet.
type lengths struct{ Range }

func (l *lengths) takes() takes { return text | integer }
func (l *lengths) describe() schema {
	return schema{"pattern": "^[0-9]{1,5}-[0-9]{1,5}$", "minimum": minIPPacket, "maximum": maxIPPacket}
}
func (l *lengths) parse(s string) (p problem) {
	if l.Range, p = parseRange(s, "a length in bytes", 0, maxIPPacket); !p.none() {
		return p
	}
	if l.Last < minIPPacket {
		return bad("no IP packet is as short as %s bytes", s).or("lengths count the IP header: %d is the least", minIPPacket)
	}
	return problem{}
}

const (
	minIPPacket = 20
	maxIPPacket = 65535
)

// parseRange reads a number or an inclusive range of them. what is what one of them is.
func parseRange(s, what string, lowest, highest int64) (Range, problem) {
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	first, wrong := decimal(strings.TrimSpace(low), lowest, highest)
	last, wrongToo := decimal(strings.TrimSpace(high), lowest, highest)
	switch {
	case !wrong.none() || !wrongToo.none():
		return Range{}, bad("%s is not %s or a range of them", quoteIfNotNumber(s), what).or("write numbers of %d-%d", lowest, highest)
	case first > last:
		return Range{}, bad("range %d-%d is upside down", first, last).or("write %d-%d", last, first)
	}
	return Range{uint16(first), uint16(last)}, problem{}
}

// dscp is a code point (RFC 2474) by name or number.
type dscp uint8

func dscpNames() map[string]dscp {
	names := map[string]dscp{"df": 0, "le": 1, "va": 44, "ef": 46} // RFC 2474, 8622, 5865, 3246
	for class := range dscp(8) {
		names["cs"+string('0'+rune(class))] = class << 3
	}
	for class := dscp(1); class <= 4; class++ { // RFC 2597
		for precedence := dscp(1); precedence <= 3; precedence++ {
			names["af"+string('0'+rune(class))+string('0'+rune(precedence))] = class<<3 | precedence<<1
		}
	}
	return names
}

func (d *dscp) takes() takes { return text | integer }
func (d *dscp) describe() schema {
	return schema{"pattern": "^(df|le|va|ef|cs[0-7]|af[1-4][1-3])$", "minimum": 0, "maximum": 63}
}
func (d *dscp) parse(s string) (p problem) {
	if known, ok := dscpNames()[s]; ok {
		*d = known
		return problem{}
	}
	if s != "" && digits(s) {
		n, p := decimal(s, 0, 63)
		*d = dscp(n)
		return p
	}
	p = bad("%q is not a DSCP", s)
	lower := strings.ToLower(s)
	if _, ok := dscpNames()[lower]; ok {
		return p.or("write %s", lower)
	}
	if lower == "be" || lower == "default" {
		return p.or("write df")
	}
	return p.or("write df, le, cs0-cs7, af11-af43, va, ef or a number up to 63")
}
