package classify

import (
	"fmt"
	"net/netip"
	"strings"
)

// maxShown bounds how many elements of a list Match writes out.
const maxShown = 3

// Match says in one line what a rule matches, in the words of the file: "from 192.0.2.0/24 to 203.0.113.53/32 udp 53".
func (r *Rule) Match() string {
	var words []string
	add := func(word string, list []netip.Prefix) {
		if list != nil {
			words = append(words, word, prefixList(list))
		}
	}
	add("from", r.From)
	add("to", r.To)
	if len(r.NotFrom) > 0 {
		add("not_from", r.NotFrom)
	}
	if len(r.NotTo) > 0 {
		add("not_to", r.NotTo)
	}
	if r.Protocol != AnyProtocol {
		words = append(words, protocolName(r.Protocol))
	}
	if len(r.SourcePorts) > 0 {
		words = append(words, "source_ports", portList(r.SourcePorts))
	}
	if len(r.Ports) > 0 {
		words = append(words, "ports", portList(r.Ports))
	}
	words = append(words, restWords(r)...)
	if len(words) == 0 {
		return "any"
	}
	return strings.Join(words, " ")
}

func prefixList(list []netip.Prefix) string {
	if len(list) == 0 {
		return "nothing"
	}
	var shown []string
	for _, p := range list[:min(len(list), maxShown)] {
		shown = append(shown, p.String())
	}
	out := strings.Join(shown, ",")
	if more := len(list) - len(shown); more > 0 {
		out += fmt.Sprintf(" and %d more", more)
	}
	return out
}
