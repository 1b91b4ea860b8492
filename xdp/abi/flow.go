package abi

import (
	"cmp"
	"encoding/binary"
	"net/netip"
)

// KeyOf is the key of the flow of a packet, and the end of it that sends the packet, 0 or 1: flow_key() of flow.h. Ports are
// in host byte order; of an ICMP echo who asked has the id, the other 0. Both addresses are of one family.
func KeyOf(src, dst netip.Addr, sport, dport uint16, protocol uint8) (key FlowKey, sender int) {
	from, to := Addr(src.As16()), Addr(dst.As16())
	var ports [2][2]byte
	binary.BigEndian.PutUint16(ports[0][:], sport)
	binary.BigEndian.PutUint16(ports[1][:], dport)
	if compareEnds(to, ports[1], from, ports[0]) < 0 {
		return FlowKey{Addr: [2]Addr{to, from}, Port: [2][2]byte{ports[1], ports[0]}, Protocol: protocol}, 1
	}
	return FlowKey{Addr: [2]Addr{from, to}, Port: ports, Protocol: protocol}, 0
}

// compareEnds orders the ends of a key, on words and ports as the processor loads them: both architectures that the programs
// are built for are little endian.
func compareEnds(a Addr, port [2]byte, b Addr, other [2]byte) int {
	half := func(a Addr, n int) uint64 { return binary.LittleEndian.Uint64(a[8*n:]) }
	return cmp.Or(cmp.Compare(half(a, 0), half(b, 0)), cmp.Compare(half(a, 1), half(b, 1)),
		cmp.Compare(binary.LittleEndian.Uint16(port[:]), binary.LittleEndian.Uint16(other[:])))
}
