package config

import (
	"errors"
	"strings"
)

// The words of rules, for who speaks of one packet. An error says what would be right.

// ParseDSCP reads a code point by name or number.
func ParseDSCP(word string) (uint8, error) {
	var d dscp
	err := d.parse(strings.ToLower(word)).err()
	return uint8(d), err
}

// ParseICMPType reads a type, with or without a code, by number or by the name that it has in a protocol: icmp or icmpv6.
func ParseICMPType(word string, p Protocol) (ICMPType, error) {
	var i icmpType
	wrong := i.parse(strings.ToLower(word))
	if wrong.none() {
		var t ICMPType
		if t, wrong = i.of(p); wrong.none() {
			return t, nil
		}
	}
	var names []string
	for _, n := range icmpNames() {
		if p == protocolICMP && n.v4 != "" || p == protocolICMPv6 && n.v6 != "" {
			names = append(names, n.name)
		}
	}
	return ICMPType{}, errors.New(wrong.err().Error() + "; there are " + strings.Join(names, ", "))
}

// ParseTCPFlag reads a flag by name, with ! where it is clear. bit is that of byte 13 of the TCP header.
func ParseTCPFlag(word string) (bit uint8, clear bool, err error) {
	var f tcpFlag
	err = f.parse(strings.ToLower(word)).err()
	return f.bit, f.clear, err
}

// ParseFragmentMatch reads which fragments.
func ParseFragmentMatch(word string) (FragmentMatch, error) {
	word = strings.ToLower(word)
	return FragmentMatch(word), FragmentMatch("").words().judge(word).err()
}

// err is a problem that stands nowhere in a file; nil is none.
func (p problem) err() error {
	if p.none() {
		return nil
	}
	return errors.New(Error{Msg: p.msg, Hint: p.hint}.Error())
}
