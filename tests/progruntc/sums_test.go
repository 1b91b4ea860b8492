package progruntc_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// parsed is what the tests of translation look at, of a frame without tags.
type parsed struct {
	frame    []byte
	l3, l4   int // offsets
	protocol uint8
	src, dst netip.Addr
	later    bool // a fragment without transport header
	whole    bool // no fragment
}

func parseFrame(frame []byte) parsed { return parseIP(frame, 14) }

func parseIP(frame []byte, l3 int) parsed {
	p := parsed{frame: frame, l3: l3, whole: true}
	ip := frame[l3:]
	if ip[0]>>4 == 4 {
		p.src, p.dst = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
		p.protocol, p.l4 = ip[9], l3+int(ip[0]&15)*4
		fragment := binary.BigEndian.Uint16(ip[6:])
		p.later, p.whole = fragment&0x1fff != 0, fragment&0x3fff == 0
		return p
	}
	p.src, p.dst = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
	p.protocol, p.l4 = ip[6], l3+40
	if p.protocol == 44 {
		offset := binary.BigEndian.Uint16(ip[42:])
		p.protocol, p.l4 = ip[40], l3+48
		p.later, p.whole = offset&0xfff8 != 0, offset&0xfff9 == 0
	}
	return p
}

// port is the source or destination port, or the id of an echo.
func (p parsed) port(source bool) uint16 {
	switch {
	case p.protocol == 1 || p.protocol == 58:
		return binary.BigEndian.Uint16(p.frame[p.l4+4:])
	case source:
		return binary.BigEndian.Uint16(p.frame[p.l4:])
	}
	return binary.BigEndian.Uint16(p.frame[p.l4+2:])
}

// String is "10.0.1.10:4000 > 198.51.100.7:53", for an echo with its id twice.
func (p parsed) String() string {
	if p.later || p.protocol == 47 {
		return fmt.Sprintf("%s > %s", p.src, p.dst)
	}
	return fmt.Sprintf("%s > %s", netip.AddrPortFrom(p.src, p.port(true)), netip.AddrPortFrom(p.dst, p.port(false)))
}

// checksumAt is the offset of the transport checksum, or 0.
func (p parsed) checksumAt() int {
	switch p.protocol {
	case 6:
		return p.l4 + 16
	case 17, 136:
		return p.l4 + 6
	case 1, 58:
		return p.l4 + 2
	}
	return 0
}

// payload is everything from the transport header on, that the IP header counts.
func (p parsed) payload() []byte {
	if p.src.Is4() {
		return p.frame[p.l4 : p.l3+int(binary.BigEndian.Uint16(p.frame[p.l3+2:]))]
	}
	return p.frame[p.l4 : p.l3+40+int(binary.BigEndian.Uint16(p.frame[p.l3+4:]))]
}

// sum is the transport checksum over payload, which holds one already: 0 where that is right.
func (p parsed) sum(payload []byte) uint16 {
	var pseudo []byte
	if p.protocol != 1 {
		pseudo = append(append(pseudo, p.src.AsSlice()...), p.dst.AsSlice()...)
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(payload)))
		pseudo = append(pseudo, 0, 0, 0, p.protocol)
	}
	return checksum(append(pseudo, payload...))
}

// fix writes every checksum anew, inside out.
func fix(frame []byte) []byte {
	out := append([]byte(nil), frame...)
	fixIP(out, 14)
	return out
}

func fixIP(frame []byte, l3 int) {
	p := parseIP(frame, l3)
	if p.src.Is4() {
		binary.BigEndian.PutUint16(frame[l3+10:], 0)
		binary.BigEndian.PutUint16(frame[l3+10:], checksum(frame[l3:l3+int(frame[l3]&15)*4]))
	}
	at := p.checksumAt()
	if at == 0 || p.later || !p.whole || at+2 > len(frame) || p.l3+headed(p) > len(frame) {
		return
	}
	if p.isError() {
		fixIP(frame, p.l4+8)
	}
	if p.protocol == 17 && binary.BigEndian.Uint16(frame[at:]) == 0 {
		return
	}
	binary.BigEndian.PutUint16(frame[at:], 0)
	sum := p.sum(p.payload())
	if p.protocol == 17 && sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(frame[at:], sum)
}

// headed is the length of the packet as its header says.
func headed(p parsed) int {
	if p.src.Is4() {
		return int(binary.BigEndian.Uint16(p.frame[p.l3+2:]))
	}
	return 40 + int(binary.BigEndian.Uint16(p.frame[p.l3+4:]))
}

func (p parsed) isError() bool {
	if p.later {
		return false
	}
	kind := p.frame[p.l4]
	return p.protocol == 1 && (kind == 3 || kind == 11 || kind == 12) || p.protocol == 58 && kind < 128
}

// wrongSums recomputes every checksum of a frame, that of a quoted packet included where all of it is quoted. A first fragment's
// transport checksum covers what is not in it; sums of others are tested by what is reassembled.
func wrongSums(frame []byte) error { return wrongIP(frame, 14, "") }

func wrongIP(frame []byte, l3 int, what string) error {
	p := parseIP(frame, l3)
	if p.src.Is4() {
		if sum := checksum(frame[l3 : l3+int(frame[l3]&15)*4]); sum != 0 {
			return fmt.Errorf("%sIPv4 header checksum is off by %#x", what, sum)
		}
	}
	at := p.checksumAt()
	if at == 0 || p.later || !p.whole || p.l3+headed(p) > len(frame) {
		return nil
	}
	if p.isError() {
		if err := wrongIP(frame, p.l4+8, what+"quoted "); err != nil {
			return err
		}
	}
	if p.protocol == 17 && binary.BigEndian.Uint16(frame[at:]) == 0 {
		return nil
	}
	if sum := p.sum(p.payload()); sum != 0 {
		return fmt.Errorf("%schecksum of protocol %d is off by %#x in %x", what, p.protocol, sum, frame[l3:])
	}
	return nil
}
