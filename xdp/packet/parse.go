package packet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

const example = "tcp 192.0.2.7:1234 > 203.0.113.9:443 flags=S"

// Parse reads one line: a protocol by name or number, where from, ">", where to, and options. Its errors say which word
// is wrong and show one that is right.
func Parse(text string) (Spec, error) {
	s, err := parse(strings.Fields(text))
	if err != nil {
		return Spec{}, fmt.Errorf("packet %q: %w", text, err)
	}
	return s, nil
}

func parse(words []string) (Spec, error) {
	if len(words) < 4 || words[2] != ">" {
		return Spec{}, fmt.Errorf("want PROTOCOL FROM > TO [OPTION=VALUE]..., as in %q", example)
	}
	var s Spec
	var err error
	if s.Protocol, err = parseProtocol(words[0]); err != nil {
		return Spec{}, err
	}
	// Options first: a later fragment has no ports, and so its addresses need none.
	if s.Protocol == ICMP {
		s.ICMPType = 8
	} else if s.Protocol == ICMPv6 {
		s.ICMPType = 128
	}
	if err := s.options(words[4:]); err != nil {
		return Spec{}, err
	}
	if s.Src, s.SrcPort, err = s.parseEndpoint(words[1]); err != nil {
		return Spec{}, err
	}
	if s.Dst, s.DstPort, err = s.parseEndpoint(words[3]); err != nil {
		return Spec{}, err
	}
	return s, s.check()
}

func parseProtocol(word string) (uint8, error) {
	for _, p := range protocols {
		if p.name == strings.ToLower(word) {
			return p.number, nil
		}
	}
	n, err := strconv.ParseUint(word, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q: want tcp, udp, sctp, udplite, icmp, icmpv6, gre, esp or a number to 255", word)
	}
	return uint8(n), nil
}

func (s *Spec) parseEndpoint(word string) (netip.Addr, uint16, error) {
	if !s.HasPorts() {
		addr, err := netip.ParseAddr(strings.Trim(word, "[]"))
		if err != nil && s.Offset != 0 {
			return netip.Addr{}, 0, fmt.Errorf("address %q: a later fragment shows no ports: want an IPv4 or IPv6 address alone, as in 192.0.2.7 or 2001:db8::7", word)
		}
		if err != nil || addr.Zone() != "" {
			return netip.Addr{}, 0, fmt.Errorf("address %q: want an IPv4 or IPv6 address without a port, as in 192.0.2.7 or 2001:db8::7", word)
		}
		return addr, 0, nil
	}
	ap, err := netip.ParseAddrPort(word)
	if err != nil || ap.Addr().Zone() != "" {
		return netip.Addr{}, 0, fmt.Errorf("address %q: want address and port, as in 192.0.2.7:1234 or [2001:db8::7]:1234", word)
	}
	return ap.Addr(), ap.Port(), nil
}

func (s *Spec) options(words []string) error {
	length := 0 // of the IP packet
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return fmt.Errorf("option %q: want OPTION=VALUE, one of %s", word, optionNames)
		}
		var err error
		if key == "length" {
			err = number(value, 20, maxFrame-14, &length)
		} else {
			err = s.option(key, value)
		}
		if err != nil {
			return fmt.Errorf("option %q: %w", word, err)
		}
	}
	switch {
	case length != 0 && s.Len != 0:
		return errors.New("len is of the frame and length of the IP packet in it: write one of them")
	case length != 0:
		s.Len = s.LinkLen() + length
	}
	return nil
}

const optionNames = "flags ttl dscp length len vlan frag type code id mss src-mac dst-mac"

func (s *Spec) option(key, value string) error {
	var err error
	switch key {
	case "flags":
		err = s.parseFlags(value)
	case "mss":
		err = number(value, 1, 65535, &s.MSS)
	case "ttl":
		err = number(value, 1, 255, &s.TTL)
	case "dscp":
		err = number(value, 0, 63, &s.DSCP)
	case "len":
		err = number(value, 14, maxFrame, &s.Len)
	case "vlan":
		var id uint16
		err = number(value, 0, 4095, &id)
		s.VLANs = append(s.VLANs, id)
	case "frag":
		err = s.parseFragment(value)
	case "type":
		err = number(value, 0, 255, &s.ICMPType)
	case "code":
		err = number(value, 0, 255, &s.ICMPCode)
	case "id":
		err = number(value, 0, 65535, &s.ICMPID)
	case "src-mac":
		s.SrcMAC, err = parseMAC(value)
	case "dst-mac":
		s.DstMAC, err = parseMAC(value)
	default:
		return fmt.Errorf("no such option: want one of %s, or fragment", optionNames)
	}
	return err
}

func number[T uint8 | uint16 | int](text string, low, high int, to *T) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return fmt.Errorf("want a number from %d to %d", low, high)
	}
	*to = T(n)
	return nil
}

func parseMAC(text string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		return nil, errors.New("want a MAC address, as in 02:00:00:00:00:01")
	}
	return mac, nil
}

func (s *Spec) parseFlags(text string) error {
	if text == "none" {
		s.TCPFlags, s.NoTCPFlags = 0, true
		return nil
	}
	for _, letter := range strings.ToUpper(text) {
		bit := strings.IndexRune(FlagLetters, letter)
		if bit < 0 {
			return fmt.Errorf("flags are letters of %s or \"none\", as in flags=SA", FlagLetters)
		}
		s.TCPFlags |= 1 << bit
	}
	if s.TCPFlags == 0 {
		return fmt.Errorf("flags are letters of %s or \"none\", as in flags=SA", FlagLetters)
	}
	return nil
}

func (s *Spec) parseFragment(text string) error {
	offset, more := strings.CutSuffix(text, "+")
	n, err := strconv.ParseUint(offset, 10, 16)
	if err != nil || n%8 != 0 {
		return errors.New("want an offset in bytes, a multiple of 8, and + where more follow: frag=0+ is a first fragment, frag=1480 a last one")
	}
	s.Fragment, s.Offset, s.More = true, uint16(n), more
	if n == 0 && !more {
		return errors.New("offset 0 without + is a whole packet: leave frag out")
	}
	return nil
}

// check finds what only several words together show.
func (s *Spec) check() error {
	switch {
	case s.Src.Is4() != s.Dst.Is4():
		return fmt.Errorf("%s and %s are of different families", s.Src, s.Dst)
	case s.Src.Is4In6() || s.Dst.Is4In6():
		return errors.New("write an IPv4 address as IPv4, as in 192.0.2.7")
	case s.Protocol == ICMP && s.Src.Is6():
		return errors.New("icmp is for IPv4: IPv6 has icmpv6")
	case s.Protocol == ICMPv6 && s.Src.Is4():
		return errors.New("icmpv6 is for IPv6: IPv4 has icmp")
	case (s.TCPFlags != 0 || s.NoTCPFlags) && s.Protocol != TCP:
		return errors.New("flags are for tcp")
	case s.MSS != 0 && (s.Protocol != TCP || s.flags()&SYN == 0 || s.Offset != 0):
		return errors.New("mss is for a SYN of tcp")
	case len(s.VLANs) > 8:
		return errors.New("more than 8 VLAN tags")
	}
	_, err := s.Frame()
	return err
}
