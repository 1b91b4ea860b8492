package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// icmpType is a type by number, with or without a code, or by name. What a name means takes the rule's protocol.
type icmpType struct {
	ICMPType
	name string
}

// icmpName is a type, or a type with a code, in both families: "" where a family has none (IANA's registries of ICMP
// and ICMPv6 parameters).
type icmpName struct{ name, v4, v6 string }

func icmpNames() []icmpName {
	return []icmpName{
		{"echo-request", "8", "128"},
		{"echo-reply", "0", "129"},
		{"destination-unreachable", "3", "1"},
		{"network-unreachable", "3/0", ""},
		{"host-unreachable", "3/1", ""},
		{"protocol-unreachable", "3/2", ""},
		{"port-unreachable", "3/3", "1/4"},
		{"fragmentation-needed", "3/4", ""},
		{"source-route-failed", "3/5", ""},
		{"admin-prohibited", "3/13", "1/1"},
		{"no-route", "", "1/0"},
		{"address-unreachable", "", "1/3"},
		{"packet-too-big", "", "2"},
		{"time-exceeded", "11", "3"},
		{"ttl-exceeded", "11/0", ""},
		{"hop-limit-exceeded", "", "3/0"},
		{"reassembly-time-exceeded", "11/1", "3/1"},
		{"parameter-problem", "12", "4"},
		{"source-quench", "4", ""},
		{"redirect", "5", "137"},
		{"router-advertisement", "9", "134"},
		{"router-solicitation", "10", "133"},
		{"neighbor-solicitation", "", "135"},
		{"neighbor-advertisement", "", "136"},
		{"timestamp-request", "13", ""},
		{"timestamp-reply", "14", ""},
		{"extended-echo-request", "42", "160"},
		{"extended-echo-reply", "43", "161"},
		{"multicast-listener-query", "", "130"},
		{"multicast-listener-report", "", "131"},
		{"multicast-listener-done", "", "132"},
		{"multicast-listener-report-v2", "", "143"},
	}
}

// icmpTwin is what says the same in the other family, where that has no such name.
func icmpTwin(name string) string {
	return map[string]string{"fragmentation-needed": "packet-too-big", "packet-too-big": "fragmentation-needed",
		"ttl-exceeded": "hop-limit-exceeded", "hop-limit-exceeded": "ttl-exceeded", "no-route": "network-unreachable",
		"network-unreachable": "no-route", "address-unreachable": "host-unreachable", "host-unreachable": "address-unreachable"}[name]
}

func (i *icmpType) takes() takes { return text | integer }
func (i *icmpType) describe() schema {
	return schema{"pattern": "^([a-z][a-z0-9-]*|[0-9]{1,3}/[0-9]{1,3})$", "minimum": 0, "maximum": 255}
}
func (i *icmpType) parse(s string) problem {
	if s != "" && strings.Trim(s, "0123456789/") == "" {
		var ok bool
		if i.ICMPType, ok = icmpNumber(s); !ok {
			return bad("%s is not an ICMP type", s).or("write a number up to 255, or type/code, such as \"3/4\"")
		}
		return problem{}
	}
	var names []string
	for _, n := range icmpNames() {
		names = append(names, n.name)
	}
	if !slices.Contains(names, s) {
		p := bad("%q is not an ICMP type", s)
		if near := nearest(s, names); near != "" {
			return p.or("did you mean %s?", near)
		}
		return p.or("write a name such as echo-request, a number, or type/code such as \"3/4\"")
	}
	i.name = s
	return problem{}
}

// icmpNumber reads a type, or type/code.
func icmpNumber(s string) (ICMPType, bool) {
	kind, code, coded := strings.Cut(s, "/")
	t, badType := decimal(kind, 0, 255)
	c, badCode := decimal(cmp.Or(code, "0"), 0, 255)
	if !coded {
		c = AnyCode
	}
	return ICMPType{uint8(t), int(c)}, badType.none() && badCode.none() && (!coded || code != "")
}

// of gives a name the meaning that it has in a protocol, which is ICMP or ICMPv6.
func (i *icmpType) of(p Protocol) (ICMPType, problem) {
	if i.name == "" {
		return i.ICMPType, problem{}
	}
	all := icmpNames()
	known := all[slices.IndexFunc(all, func(n icmpName) bool { return n.name == i.name })]
	number, family, other := known.v4, "icmp", "icmpv6"
	if p == protocolICMPv6 {
		number, family, other = known.v6, "icmpv6", "icmp"
	}
	if number == "" {
		wrong := bad("%s is of %s, not of %s", i.name, other, family)
		if twin := icmpTwin(i.name); twin != "" {
			return ICMPType{}, wrong.or("write %s, or protocol: %s", twin, other)
		}
		return ICMPType{}, wrong.or("write protocol: %s", other)
	}
	out, _ := icmpNumber(number)
	return out, problem{}
}

// String is the type as the file writes it by number.
func (t ICMPType) String() string {
	if t.Code == AnyCode {
		return strconv.Itoa(int(t.Type))
	}
	return fmt.Sprintf("%d/%d", t.Type, t.Code)
}
