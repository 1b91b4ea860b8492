package child

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// What is in the data of a request (RFC 792, RFC 4443), and so of its answer: the nonce and the tag, big endian.
const (
	echoHeader = 8
	echoLen    = echoHeader + len(nonce{}) + 8
	hopLimit   = 64
)

// echoRequest is the IP packet of one. The identifier is the same in all of a nonce: trackers see one flow for each address.
func echoRequest(from, to netip.Addr, n nonce, tag uint64) ([]byte, error) {
	id, seq := binary.BigEndian.Uint16(n[:]), uint16(tag)
	data := gopacket.Payload(binary.BigEndian.AppendUint64(n[:], tag))
	b := gopacket.NewSerializeBuffer()
	o := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	var err error
	if to.Is4() {
		ip := &layers.IPv4{Version: 4, Flags: layers.IPv4DontFragment, TTL: hopLimit, Protocol: layers.IPProtocolICMPv4, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
		echo := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: id, Seq: seq}
		err = gopacket.SerializeLayers(b, o, ip, echo, data)
	} else {
		ip := &layers.IPv6{Version: 6, HopLimit: hopLimit, NextHeader: layers.IPProtocolICMPv6, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
		if err = icmp.SetNetworkLayerForChecksum(ip); err == nil {
			err = gopacket.SerializeLayers(b, o, ip, icmp, &layers.ICMPv6Echo{Identifier: id, SeqNumber: seq}, data)
		}
	}
	return b.Bytes(), err
}

// echoReply says whether an IP packet answers a request with that nonce. Everything that comes out of the tunnel is asked. An answer
// with IPv4 options or extension headers is none: it takes the way of any packet.
func echoReply(packet []byte, n nonce) (tag uint64, ok bool) {
	const ipv4, ipv6 = 20, 40
	var echo []byte
	var reply byte
	switch {
	case len(packet) == ipv4+echoLen && packet[0] == 4<<4|ipv4/4 && packet[9] == unix.IPPROTO_ICMP:
		echo, reply = packet[ipv4:], layers.ICMPv4TypeEchoReply
	case len(packet) == ipv6+echoLen && packet[0]>>4 == 6 && packet[6] == unix.IPPROTO_ICMPV6:
		echo, reply = packet[ipv6:], layers.ICMPv6TypeEchoReply
	default:
		return 0, false
	}
	if echo[0] != reply || echo[1] != 0 || !bytes.Equal(echo[echoHeader:echoHeader+len(n)], n[:]) {
		return 0, false
	}
	return binary.BigEndian.Uint64(echo[echoHeader+len(n):]), true
}

// sources tells which address the kernel gives to what leaves by an interface. It is asked for each packet: routes and addresses change.
type sources struct {
	link    int    // the interface's index
	sockets [2]int // IPv4, IPv6; 0: not needed yet
}

// to is the source of what leaves for somewhere: a socket that is connected has it, until it is disconnected.
func (s *sources) to(a netip.Addr) (netip.Addr, error) {
	fd, err := s.socket(a.Is6())
	if err != nil {
		return netip.Addr{}, err
	}
	var name sockaddr
	length := uint32(unix.SizeofSockaddrInet6)
	if err := connect(fd, &sockaddr{Family: unix.AF_UNSPEC}, length); err != nil {
		return netip.Addr{}, err
	}
	if err := connect(fd, &name, putAddress(&name, placeOf(a, s.link), 0)); err != nil {
		return netip.Addr{}, err
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&length))); errno != 0 {
		return netip.Addr{}, errno
	}
	from, _ := getAddress(&name)
	if from.IsUnspecified() {
		return netip.Addr{}, unix.EADDRNOTAVAIL
	}
	return from.Addr, nil
}

// connect sends nothing, and never waits.
func connect(fd int, to *sockaddr, length uint32) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(to)), uintptr(length)); errno != 0 {
		return errno
	}
	return nil
}

// socket is that of a family, which takes the interface for what it is connected to (IPv4: since Linux 6.0).
func (s *sources) socket(v6 bool) (int, error) {
	n, family, level, option := 0, unix.AF_INET, unix.IPPROTO_IP, unix.IP_UNICAST_IF
	if v6 {
		n, family, level, option = 1, unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_IF
	}
	if s.sockets[n] != 0 {
		return s.sockets[n], nil
	}
	// Of this protocol (255) nothing is ever received.
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return 0, err
	}
	index := int(int32(binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, uint32(s.link))))) // in network byte order
	if err := unix.SetsockoptInt(fd, level, option, index); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	s.sockets[n] = fd
	return fd, nil
}
