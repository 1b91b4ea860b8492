package ipsec

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A peer that has lost its disk begins in an epoch that nobody stands ready for. Its packets still say who it is, by the tag
// of their SPI, and the epoch's low bits; which epoch it is, the packet itself proves, for only the right key opens it. So a
// socket looks at the packets for a moment, and nothing is believed that was not authenticated.

// ear is a peer that is listened for.
type ear struct {
	tunnel, peer string
	local        netip.AddrPort
	udp          bool
	direction    direction // of what it sends
	heard        uint64
}

const (
	listenFor = time.Second
	// tries bounds the packets of one peer that are examined while listening: to search for the epoch of a forged one takes
	// some 0.15 to 0.4 s of CPU.
	tries = 2
)

// listen looks at what arrives, for at most listenFor, and returns how many peers it has found.
func (d *Driver) listen(ctx context.Context, ears []ear) (found int, err error) {
	fd, err := packetSocket()
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	tried := map[string]int{}
	buf := make([]byte, 1<<16)
	for end := time.Now().Add(listenFor); time.Now().Before(end) && ctx.Err() == nil && len(ears) > 0; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return found, os.NewSyscallError("recvfrom", err)
		}
		dst, esp, udp := espOf(buf[:n])
		if esp == nil {
			continue
		}
		for i, e := range ears {
			if !e.direction.owns(binary.BigEndian.Uint32(esp)) || dst.Addr() != e.local.Addr() || udp != e.udp || udp && dst.Port() != port(e.local) {
				continue
			}
			id := e.tunnel + "/" + e.peer
			if tried[id]++; tried[id] > tries {
				break
			}
			epoch, ok := search(e.direction, esp, e.heard, d.opts.Now())
			if !ok {
				d.past(e, esp)
				break
			}
			if err := d.heard(e, epoch); err != nil {
				return found, err
			}
			ears = append(ears[:i:i], ears[i+1:]...)
			found++
			break
		}
	}
	return found, nil
}

// packetSocket sees IP packets that arrive on any interface and are ESP or UDP, from their IP header on.
func packetSocket() (int, error) {
	all := int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})) // in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	// The filter stands before the socket is bound to a protocol and sees anything.
	filter := []unix.SockFilter{
		{Code: 0x30, K: 0},                       // A = first byte
		{Code: 0x54, K: 0xf0},                    // A &= its upper half: the version
		{Code: 0x15, K: 0x40, Jt: 0, Jf: 2},      // 4?
		{Code: 0x30, K: 9},                       // A = protocol
		{Code: 0x05, K: 2},                       // to the comparison
		{Code: 0x15, K: 0x60, Jt: 0, Jf: 4},      // 6?
		{Code: 0x30, K: 6},                       // A = next header
		{Code: 0x15, K: unix.IPPROTO_ESP, Jt: 1}, // ESP: take it
		{Code: 0x15, K: unix.IPPROTO_UDP, Jf: 1}, // UDP: take it
		{Code: 0x06, K: 0xffff},                  // take
		{Code: 0x06, K: 0},                       // leave
	}
	program := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err = errors.Join(
		os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program)),
		os.NewSyscallError("setsockopt SO_RCVTIMEO", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000})),
		os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all)})))
	if err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
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

// espHeader is SPI, sequence number (4 bytes each) and GCM's IV (8).
const espHeader = 16

// search returns the epoch above heard whose key opens an ESP packet. It looks back and ahead in turn from now on, or from
// what was heard where that is later: a sender began by its clock, long ago or just now, and has counted on since; or by a clock that was wrong.
func search(d direction, esp []byte, heard uint64, now time.Time) (uint64, bool) {
	const (
		step  = spiMask + 1
		ahead = 1 << 20 // two years of minutes
	)
	base := max(sinceStart(now), heard)
	end := max(base+ahead, furthest)
	from, ok := latest(binary.BigEndian.Uint32(esp), base)
	back, behind := from, ok && from > heard
	for next := from + step; behind || next <= end; next += step { // from wraps where ok is false, and next does not
		if behind && opens(d, back, esp) {
			return back, true
		}
		if behind = behind && back > heard+step; behind {
			back -= step
		}
		if next <= end && opens(d, next, esp) {
			return next, true
		}
	}
	return 0, false
}

// former returns the epoch before the one that was heard whose key opens an ESP packet. It looks back a little: a state directory of a
// backup is some boots and rotations old.
func former(d direction, esp []byte, heard uint64) (uint64, bool) {
	const step, back = spiMask + 1, 16
	e, ok := latest(binary.BigEndian.Uint32(esp), heard)
	for range back {
		if !ok {
			break
		}
		if e < heard && opens(d, e, esp) {
			return e, true
		}
		e, ok = e-step, e >= step
	}
	return 0, false
}

// past tells of a peer that sends in an epoch of the past, once for each. It may be a replay as well, so no more is done; or
// late, where its state lingers.
func (d *Driver) past(e ear, esp []byte) {
	epoch, ok := former(e.direction, esp, e.heard)
	if !ok {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tunnels[e.tunnel]
	if t == nil || t.peers[e.peer] == nil {
		return
	}
	p := t.peers[e.peer]
	if p.former == epoch || epoch+1 == e.heard && d.lingers(p) {
		return
	}
	p.former = epoch
	d.log.Warn(fmt.Sprintf("peer %s sends in epoch %d, which was used before: its state directory is older than its past (or somebody replays its packets); "+
		"run sluice key rotate there, until it is past the epoch that was heard", e.peer, epoch), "tunnel", e.tunnel, "heard", e.heard)
}

// opens says whether a packet is authentic under an epoch's key (RFC 4106). The upper half of its sequence number, which
// is not in it, is 0 in every epoch that maxPackets has ended.
func opens(d direction, epoch uint64, esp []byte) bool {
	material, err := d.key(epoch)
	if err != nil {
		return false
	}
	key := material()
	block, err := aes.NewCipher(key[:32])
	if err != nil {
		return false
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return false
	}
	var aad [12]byte // SPI, upper and lower half of the sequence number
	copy(aad[:4], esp[:4])
	copy(aad[8:], esp[4:8])
	nonce := append(append(make([]byte, 0, 12), key[32:]...), esp[8:espHeader]...)
	_, err = aead.Open(nil, nonce, esp[espHeader:], aad[:])
	return err == nil
}

// Statistics returns the kernel's IPsec error counters (CONFIG_XFRM_STATISTICS) of the calling thread's network namespace,
// by the kernel's own names. They count for all tunnels and foreign states together.
func Statistics() (map[string]uint64, error) {
	data, err := os.ReadFile("/proc/thread-self/net/xfrm_stat")
	if err != nil {
		return nil, fmt.Errorf("IPsec counters: %w", err)
	}
	out := map[string]uint64{}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 {
			if out[f[0]], err = strconv.ParseUint(f[1], 10, 64); err != nil {
				return nil, fmt.Errorf("IPsec counters: %w", err)
			}
		}
	}
	return out, nil
}
