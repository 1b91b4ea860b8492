package ipsec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// packetSocket sees IP packets that arrive on any interface and whose SPI may be of a direction in tags, from their IP header on.
func packetSocket(tags []uint32) (*os.File, error) {
	all := int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})) // in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// The filter stands before the socket is bound to a protocol and sees anything. What leaves would be cloned before it is filtered.
	err = errors.Join(setFilter(fd, tags),
		os.NewSyscallError("setsockopt PACKET_IGNORE_OUTGOING", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)),
		os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all)})))
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "packets"), nil
}

// setFilter exchanges a socket's filter, without a moment in between.
func setFilter(fd int, tags []uint32) error {
	raw, err := bpf.Assemble(filter(tags))
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program))
}

// mostTags is how many are compared in the kernel: net.core.optmem_max (20 KB before 6.7) must hold a filter and its successor.
// With more, whatever may be ESP is looked at.
const mostTags = 512

// filter takes what espOf may find ESP in, with an SPI of one of the tags, which are sorted. A load beyond the packet leaves it.
func filter(tags []uint32) []bpf.Instruction {
	spi := []bpf.Instruction{take}
	if len(tags) <= mostTags {
		spi = append([]bpf.Instruction{bpf.LoadIndirect{Size: 4}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(spiMask)}}, among(tags)...)
	}
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 4, SkipTrue: 7}, // leave
		bpf.LoadMemShift{},                                      // X = length of the IPv4 header
		bpf.LoadAbsolute{Off: 9, Size: 1},                       // protocol
		bpf.Jump{Skip: 2},
		bpf.LoadConstant{Dst: bpf.RegX, Val: 40},
		bpf.LoadAbsolute{Off: 6, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ESP, SkipTrue: 5},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipTrue: 1},
		leave,
		bpf.TXA{}, // behind the UDP header
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 8},
		bpf.TAX{},
	}, spi...)
}

var take, leave = bpf.RetConstant{Val: 0xffff}, bpf.RetConstant{}

// among takes what has its SPI's tag in A, if that is one of tags. Conditional jumps reach 255 instructions, so the tree has leaves.
func among(tags []uint32) (out []bpf.Instruction) {
	if n := len(tags); n > 16 {
		below, above := among(tags[:n/2]), among(tags[n/2:])
		out = append(out, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: tags[n/2], SkipTrue: 1}, bpf.Jump{Skip: uint32(len(below))})
		return append(append(out, below...), above...)
	}
	for i, t := range tags {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: t, SkipTrue: uint8(len(tags) - i)})
	}
	return append(out, leave, take)
}

// espOf returns the ESP header and what follows in an IP packet, and where the packet goes: with the port, where it is
// carried in UDP. Fragments and IPv6 extension headers are nothing that a sender of ours makes.
func espOf(b []byte) (dst netip.AddrPort, esp []byte, udp bool) {
	var addr netip.Addr
	var protocol byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		size := int(b[0]&15) * 4
		total := int(binary.BigEndian.Uint16(b[2:]))
		if size < 20 || total < size || total > len(b) || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return dst, nil, false
		}
		addr, protocol, b = netip.AddrFrom4([4]byte(b[16:])), b[9], b[size:total]
	case len(b) >= 40 && b[0]>>4 == 6:
		size := int(binary.BigEndian.Uint16(b[4:]))
		if 40+size > len(b) {
			return dst, nil, false
		}
		addr, protocol, b = netip.AddrFrom16([16]byte(b[24:])), b[6], b[40:40+size]
	default:
		return dst, nil, false
	}
	dst = netip.AddrPortFrom(addr, 0)
	if protocol == unix.IPPROTO_UDP {
		if len(b) < 8 {
			return dst, nil, false
		}
		dst, b, udp = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[2:])), b[8:], true
	}
	// Four zeros are IKE's mark (RFC 3948 section 2.2), and no SPI.
	if len(b) < espHeader+icvBits/8 || bytes.Equal(b[:4], make([]byte, 4)) {
		return dst, nil, false
	}
	return dst, b, udp
}
