package bgp_test

import (
	"bytes"
	"encoding/binary"
)

// Messages of RFC 4271 section 4, by hand: a library would not make the wrong ones.

func message(kind byte, body ...[]byte) []byte {
	all := bytes.Join(body, nil)
	out := bytes.Repeat([]byte{0xff}, 16)
	out = binary.BigEndian.AppendUint16(out, uint16(19+len(all)))
	return append(append(out, kind), all...)
}

// open is a right one: AS 65000, hold 90 s, unicast and FlowSpec of both families, 4-octet AS numbers, extended messages (RFC 8654), route refresh.
func openMessage() []byte {
	capabilities := []byte{1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 1, 4, 0, 1, 0, 133, 1, 4, 0, 2, 0, 133, 65, 4, 0, 0, 0xfd, 0xe8, 6, 0, 2, 0}
	parameters := append([]byte{2, byte(len(capabilities))}, capabilities...)
	return message(1, []byte{4, 0xfd, 0xe8, 0, 90, 198, 18, 0, 100, byte(len(parameters))}, parameters)
}

var keepalive = message(4)

// attribute has a long length where it needs one.
func attribute(flags, kind byte, value ...byte) []byte {
	if len(value) > 255 {
		return append(binary.BigEndian.AppendUint16([]byte{flags | 0x10, kind}, uint16(len(value))), value...)
	}
	return append([]byte{flags, kind, byte(len(value))}, value...)
}

var (
	origin  = attribute(0x40, 1, 0)
	asPath  = attribute(0x40, 2, 2, 1, 0, 0, 0xfd, 0xe8)
	nextHop = attribute(0x40, 3, 198, 18, 0, 1)
	prefix  = []byte{24, 192, 0, 2}
)

func update(attributes ...[]byte) []byte {
	all := bytes.Join(attributes, nil)
	return message(2, []byte{0, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(all))), all, prefix)
}

// good is an update that nothing is wrong with.
func good(more ...[]byte) []byte {
	return update(append([][]byte{origin, asPath, nextHop}, more...)...)
}

// flowUpdate is an update of FlowSpec rules, of address family 1 or 2.
func flowUpdate(afi byte, rules ...byte) []byte {
	return message(2, []byte{0, 0}, attributes(origin, asPath, attribute(0x80, 14, append([]byte{0, afi, 133, 0, 0}, rules...)...)))
}

// attributes are all of them, behind their length.
func attributes(list ...[]byte) []byte {
	all := bytes.Join(list, nil)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(all))), all...)
}

// flowSpec4 is MP_REACH of a rule of every component (RFC 8955), flowSpec6 the same of RFC 8956.
func flowSpec4() []byte {
	rule := []byte{1, 24, 203, 0, 113, 2, 16, 198, 51, 3, 1, 6, 0x81, 17, 4, 0x13, 3, 0xe8, 0xd5, 7, 0xd0, 5, 0x91, 1, 0xbb, 6, 0x81, 53, 7, 0x81, 8, 8, 0x81, 0,
		9, 0x81, 2, 10, 0x93, 0, 64, 11, 0x81, 46, 12, 0x81, 2}
	return attribute(0x80, 14, append([]byte{0, 1, 133, 0, 0, byte(len(rule))}, rule...)...)
}

func flowSpec6() []byte {
	rule := []byte{1, 48, 0, 0x20, 1, 0xd, 0xb8, 0, 1, 2, 96, 64, 1, 2, 3, 4, 3, 0x81, 6, 5, 0x81, 80, 7, 0x81, 128, 12, 0x81, 4, 13, 0xa1, 0, 0, 0x1b, 0x58}
	return attribute(0x80, 14, append([]byte{0, 2, 133, 0, 0, byte(len(rule))}, rule...)...)
}

// right are updates that nothing is wrong with, of each family and both ways.
func right() [][]byte {
	actions := attribute(0xc0, 16, 0x80, 6, 0, 0, 0x44, 0x7a, 0, 0, 0x80, 7, 0, 0, 0, 0, 0, 3, 0x80, 8, 0xfd, 0xe8, 0, 0, 0, 100, 0x80, 9, 0, 0, 0, 0, 0, 46)
	actions6 := attribute(0xc0, 25, append([]byte{0, 0xd, 0x20, 1, 0xd, 0xb8}, make([]byte, 14)...)...)
	unicast6 := attribute(0x80, 14, append(append([]byte{0, 2, 1, 16, 0x20, 1, 0xd, 0xb8}, make([]byte, 12)...), 0, 48, 0x20, 1, 0xd, 0xb8, 0, 7)...)
	return [][]byte{
		good(attribute(0x80, 4, 0, 0, 0, 7), attribute(0xc0, 8, 0xfd, 0xe8, 0, 1), attribute(0xc0, 32, 0, 0, 0xfd, 0xe8, 0, 0, 0, 1, 0, 0, 0, 2),
			attribute(0xc0, 7, 0, 0, 0xfd, 0xe8, 198, 18, 0, 1), attribute(0x80, 14, 0, 1, 1, 4, 198, 18, 0, 1, 0, 24, 198, 51, 100)),
		message(2, []byte{0, 0}, attributes(origin, asPath, unicast6)),
		message(2, []byte{0, 0}, attributes(origin, asPath, actions, flowSpec4())),
		message(2, []byte{0, 0}, attributes(origin, asPath, actions, actions6, flowSpec6())),
		message(2, []byte{0, 0}, attributes(attribute(0x80, 15, 0, 1, 133, 5, 1, 24, 203, 0, 113), attribute(0x80, 15, 0, 2, 1, 48, 0x20, 1, 0xd, 0xb8, 0, 7))),
	}
}
