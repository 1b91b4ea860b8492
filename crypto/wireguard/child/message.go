package child

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is the kernel's: a message, and how many bytes of it were sent or received.
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

// sockaddr is that of either family; its size is IPv6's.
type sockaddr = unix.RawSockaddrInet6

// maxControl has room for the source address and the size of segments, bytes.
const maxControl = 128

// control is aligned as the kernel reads and writes it.
type control [maxControl / 8]uint64

func (c *control) bytes() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(c)), maxControl) }

// putAddress writes where to, in network byte order, and returns its length.
func putAddress(to *sockaddr, p place, port uint16) uint32 {
	if p.Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(to))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(port), Addr: p.As4()}
		return unix.SizeofSockaddrInet4
	}
	*to = sockaddr{Family: unix.AF_INET6, Port: swapped(port), Addr: p.As16(), Scope_id: uint32(p.scope)}
	return unix.SizeofSockaddrInet6
}

func getAddress(from *sockaddr) (place, uint16) {
	if from.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(from))
		return placeOf(netip.AddrFrom4(v4.Addr), 0), swapped(v4.Port)
	}
	return placeOf(netip.AddrFrom16(from.Addr), int(from.Scope_id)), swapped(from.Port)
}

// swapped changes a port between the byte orders of network and host.
func swapped(port uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, port))
}

// putSource writes the address that a message is to come from, and returns the bytes that it takes: none where from is.
func putSource(b []byte, from place) int {
	switch {
	case from.Is4():
		// Spec_dst is the source; an interface would be one to send by.
		return putControl(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.Inet4Pktinfo{Spec_dst: from.As4()})
	case from.Is6():
		return putControl(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.Inet6Pktinfo{Addr: from.As16(), Ifindex: uint32(from.scope)})
	}
	return 0
}

// putSegments has the kernel cut a message into datagrams of size bytes, the last one of what is left.
func putSegments(b []byte, size int) int {
	return putControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, uint16(size))
}

func putControl[T any](b []byte, level, kind int32, value T) int {
	size := int(unsafe.Sizeof(value))
	space := unix.CmsgSpace(size)
	clear(b[:space]) // padding
	header := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	header.Level, header.Type = level, kind
	header.SetLen(unix.CmsgLen(size))
	*(*T)(unsafe.Pointer(&b[unix.CmsgLen(0)])) = value
	return space
}

// getControl reads which address a message was sent to, and the size of the datagrams that it is made of: 0 where it is
// one. The kernel writes the size before the address.
func getControl(b []byte) (to place, size int) {
	for len(b) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			break
		}
		switch {
		case header.Level == unix.SOL_UDP && header.Type == unix.UDP_GRO && len(data) >= 4:
			size = int(binary.NativeEndian.Uint32(data))
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			to = placeOf(netip.AddrFrom4(info.Spec_dst), 0)
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			to = placeOf(netip.AddrFrom16(info.Addr), int(info.Ifindex))
		}
		b = rest
	}
	return to, size
}
