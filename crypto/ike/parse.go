package ike

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/strongswan/govici/vici"
)

// section reads a message of charon's. The first value that is not what it should be sticks as the error; a key that is
// missing reads as zero, since charon leaves out what is not set.
type section struct {
	m   *vici.Message
	err *error
}

func newSection(m *vici.Message) section {
	var err error
	if m == nil {
		m = vici.NewMessage()
	}
	return section{m, &err}
}

func (s section) fail(key string, value any) {
	if *s.err == nil {
		*s.err = fmt.Errorf("%w: %s is %.80q", ErrProtocol, key, fmt.Sprint(value))
	}
}

func (s section) text(key string) string {
	switch v := s.m.Get(key).(type) {
	case nil:
	case string:
		return v
	default:
		s.fail(key, "no text")
	}
	return ""
}

func (s section) list(key string) []string {
	switch v := s.m.Get(key).(type) {
	case nil:
	case []string:
		return v
	default:
		s.fail(key, "no list")
	}
	return nil
}

func (s section) sub(key string) section {
	switch v := s.m.Get(key).(type) {
	case nil:
	case *vici.Message:
		return section{v, s.err}
	default:
		s.fail(key, "no section")
	}
	return section{vici.NewMessage(), s.err}
}

func (s section) yes(key string) bool { return s.text(key) == "yes" }

func (s section) number(key string, base, bits int) uint64 {
	text := s.text(key)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, base, bits)
	if err != nil {
		s.fail(key, text)
	}
	return n
}

// age reads seconds. What is due by now, or was before, is negative and reads as a nanosecond: 0 is "not planned".
func (s section) age(key string) time.Duration {
	text := s.text(key)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		s.fail(key, text)
	}
	if n < 0 {
		return 1
	}
	return time.Duration(n) * time.Second
}

func (s section) endpoint(host, port string) netip.AddrPort {
	text := s.text(host)
	a, err := netip.ParseAddr(text)
	if err != nil && text != "" && !strings.HasPrefix(text, "%any") {
		s.fail(host, text)
	}
	return netip.AddrPortFrom(a, uint16(s.number(port, 10, 16)))
}

// prefixes reads traffic selectors. Those that are no prefix (a range, a port) are not ours and are left out.
func (s section) prefixes(key string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range s.list(key) {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p)
		}
	}
	return slices.SortedFunc(slices.Values(out), netip.Prefix.Compare)
}

// parseConn reads an event list-conn; nil: none of ours.
func parseConn(m *vici.Message) (*Loaded, error) {
	s := newSection(m)
	for _, name := range s.m.Keys() {
		tunnel, peer, ours := splitName(name)
		if !ours {
			continue
		}
		c := s.sub(name)
		l := &Loaded{Tunnel: tunnel, Peer: peer, LocalID: c.auth("local"), RemoteID: c.auth("remote"), SecretFile: UnknownKey}
		if remotes := c.list("remote_addrs"); len(remotes) > 0 {
			l.Remote = remotes[0]
		}
		children := c.sub("children")
		// Another number of children is somebody's handiwork, and is loaded anew.
		if names := children.m.Keys(); len(names) == 1 {
			l.Digest = names[0]
			l.Prefixes = children.sub(names[0]).prefixes("remote-ts")
		}
		return l, *s.err
	}
	return nil, *s.err
}

// auth finds the identity of the first round; charon numbers the sections from 1.
func (s section) auth(end string) string { return s.sub(end + "-1").text("id") }

// parseSA reads an event list-sa; nil: none of ours.
func parseSA(m *vici.Message) (*IKESA, error) {
	s := newSection(m)
	for _, name := range s.m.Keys() {
		tunnel, peer, ours := splitName(name)
		if !ours {
			continue
		}
		c := s.sub(name)
		sa := &IKESA{
			Tunnel: tunnel, Peer: peer, ID: uint32(c.number("uniqueid", 10, 32)), State: c.text("state"), Initiator: c.yes("initiator"),
			Local: c.endpoint("local-host", "local-port"), Remote: c.endpoint("remote-host", "remote-port"),
			LocalID: c.text("local-id"), RemoteID: c.text("remote-id"), NAT: c.yes("nat-any"),
			Cipher: c.cipher("prf-alg"), Age: c.age("established"), RekeyIn: c.age("rekey-time"),
		}
		children := c.sub("child-sas")
		for _, key := range children.m.Keys() {
			sa.Children = append(sa.Children, children.sub(key).child())
		}
		slices.SortStableFunc(sa.Children, func(a, b ChildSA) int { return int(a.ID) - int(b.ID) })
		return sa, *s.err
	}
	return nil, *s.err
}

func (s section) child() ChildSA {
	return ChildSA{
		ID: uint32(s.number("uniqueid", 10, 32)), Name: s.text("name"), State: s.text("state"),
		SPIIn: uint32(s.number("spi-in", 16, 32)), SPIOut: uint32(s.number("spi-out", 16, 32)),
		Encapsulated: s.yes("encap"), ESN: s.text("esn") == "1", Cipher: s.cipher("integ-alg"),
		InterfaceID: uint32(s.number("if-id-in", 16, 32)),
		BytesIn:     s.number("bytes-in", 10, 64), PacketsIn: s.number("packets-in", 10, 64),
		BytesOut: s.number("bytes-out", 10, 64), PacketsOut: s.number("packets-out", 10, 64),
		Age: s.age("install-time"), RekeyIn: s.age("rekey-time"), EndsIn: s.age("life-time"),
		LocalTS: s.prefixes("local-ts"), RemoteTS: s.prefixes("remote-ts"),
	}
}

// cipher names the algorithms that protect an SA; second is the key of what stands beside the encryption.
func (s section) cipher(second string) string {
	text := s.text("encr-alg")
	if bits := s.text("encr-keysize"); bits != "" {
		text += "-" + bits
	}
	for _, key := range []string{second, "dh-group"} {
		if alg := s.text(key); alg != "" {
			text += "/" + alg
		}
	}
	return text
}
