package progrun_test

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Frames made byte by byte, independent of the package that makes them for `sluice explain`. Checksums are zero: nobody
// on this path looks at them.

var (
	src4 = netip.MustParseAddr("192.0.2.7")
	dst4 = netip.MustParseAddr("203.0.113.9")
	src6 = netip.MustParseAddr("2001:db8::7")
	dst6 = netip.MustParseAddr("2001:db8:1::9")
	ll6  = netip.MustParseAddr("fe80::7")
)

func be16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }

func join(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// ether is an Ethernet header with as many 802.1Q tags as ids.
func ether(ethertype int, payload []byte, vlans ...int) []byte {
	out := append(append([]byte{}, ours...), 2, 0, 0, 0, 0, 1)
	for i, id := range vlans {
		tag := 0x8100
		if i == 0 && len(vlans) > 1 {
			tag = 0x88a8 // a service tag outside
		}
		out = join(out, be16(tag), be16(0xe000|id)) // priority 7: only 12 bits are the id
	}
	return join(out, be16(ethertype), payload)
}

const (
	typeIP4 = 0x0800
	typeIP6 = 0x86dd
)

func ip4(protocol int, options, payload []byte) []byte {
	return ip4Fragment(protocol, 0, options, payload)
}

// ip4Fragment takes the field of flags and offset as it is.
func ip4Fragment(protocol, offsetFlags int, options, payload []byte) []byte {
	header := join([]byte{byte(0x40 | (20+len(options))/4), 0}, be16(20+len(options)+len(payload)), be16(1), be16(offsetFlags),
		[]byte{64, byte(protocol)}, be16(0), src4.AsSlice(), dst4.AsSlice(), options)
	return join(header, payload)
}

func ip6(next, hops int, from netip.Addr, payload []byte) []byte {
	return join([]byte{0x60, 0, 0, 0}, be16(len(payload)), []byte{byte(next), byte(hops)}, from.AsSlice(), dst6.AsSlice(), payload)
}

// to6 rewrites the destination of an IPv6 frame without tags.
func to6(a string, frame []byte) []byte {
	copy(frame[38:], netip.MustParseAddr(a).AsSlice())
	return frame
}

func tcp(sport, dport int, options ...byte) []byte {
	return join(be16(sport), be16(dport), make([]byte, 8), []byte{byte((20 + len(options)) / 4 << 4), 0x02}, be16(1024),
		make([]byte, 4), options)
}

func udp(sport, dport int, payload ...byte) []byte {
	return join(be16(sport), be16(dport), be16(8+len(payload)), be16(0), payload)
}

func sctp(sport, dport int) []byte { return join(be16(sport), be16(dport), make([]byte, 8)) }

func icmp(kind, code, id int, payload ...byte) []byte {
	return join([]byte{byte(kind), byte(code)}, be16(0), be16(id), be16(1), payload)
}

// extension is a hop-by-hop, routing or destination options header of words*8+8 bytes.
func extension(next, words int, rest []byte) []byte {
	return join([]byte{byte(next), byte(words)}, make([]byte, 6+8*words), rest)
}

// authentication is an AH of 24 bytes: six words, less two.
func authentication(next int, rest []byte) []byte {
	return join([]byte{byte(next), 4}, make([]byte, 22), rest)
}

func ip6Frag(next, offsetFlags int, rest []byte) []byte {
	return join([]byte{byte(next), 0}, be16(offsetFlags), make([]byte, 4), rest)
}

// sendPacket puts one frame on the wire through a packet socket.
func sendPacket(ifindex int, frame []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifindex, Halen: 6})
}
