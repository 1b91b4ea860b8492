package flowspec

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

const (
	longLength = 240  // from here on the length takes two octets (RFC 8955 section 4.1)
	maxLength  = 4095 // 12 bits
)

// Error says what is wrong with a rule on the wire.
type Error struct {
	Component Type // 0: none of them
	Offset    int  // in octets from where the components begin
	Why       string
}

func (e *Error) Error() string {
	if e.Component == 0 {
		return fmt.Sprintf("flowspec: octet %d: %s", e.Offset, e.Why)
	}
	return fmt.Sprintf("flowspec: component %d (%s) at octet %d: %s", uint8(e.Component), e.Component, e.Offset, e.Why)
}

// Split takes the first NLRI off the list in an attribute, and returns its components and what follows. An error means that
// the rest of the list cannot be read either.
func Split(list []byte) (components, rest []byte, err error) {
	if len(list) == 0 {
		return nil, nil, &Error{Why: "the length is missing"}
	}
	n, head := int(list[0]), 1
	if list[0] >= longLength {
		if len(list) < 2 {
			return nil, nil, &Error{Why: "the second octet of the length is missing"}
		}
		n, head = int(binary.BigEndian.Uint16(list)&maxLength), 2
	}
	if len(list)-head < n {
		return nil, nil, &Error{Why: fmt.Sprintf("the length is %d, and %d octets follow", n, len(list)-head)}
	}
	return list[head : head+n], list[head+n:], nil
}

// Parse reads the components of one NLRI. RFC 7606 makes an error a withdrawal of the rule.
func Parse(f Family, components []byte) (Rule, error) {
	p := parser{family: f, all: components, left: components}
	switch {
	case f != IPv4 && f != IPv6:
		return Rule{}, fmt.Errorf("flowspec: no family %d", uint8(f))
	case len(components) == 0:
		return Rule{}, &Error{Why: "the rule has no component"}
	case len(components) > maxLength:
		return Rule{}, &Error{Why: fmt.Sprintf("the rule is longer than %d octets", maxLength)}
	}
	r := Rule{Family: f}
	for last := Type(0); len(p.left) > 0; last = p.now {
		p.begin, p.now = p.at(), Type(p.left[0])
		p.left = p.left[1:]
		if p.now <= last && last > 0 {
			return Rule{}, p.fail("it stands behind component %d: the order is ascending, and each comes once", uint8(last))
		}
		c, err := p.component()
		if err != nil {
			return Rule{}, err
		}
		r.Components = append(r.Components, c)
	}
	return r, nil
}

// parser is a cursor: every read asks first how much is left.
type parser struct {
	family    Family
	all, left []byte
	now       Type // the component that is being read, and where it began
	begin     int
}

func (p *parser) at() int { return len(p.all) - len(p.left) }

func (p *parser) fail(format string, args ...any) error {
	return &Error{Component: p.now, Offset: p.begin, Why: fmt.Sprintf(format, args...)}
}

func (p *parser) take(n int, what string) ([]byte, error) {
	if len(p.left) < n {
		return nil, p.fail("it ends within its %s: %d octets are left of %d", what, len(p.left), n)
	}
	out := p.left[:n]
	p.left = p.left[n:]
	return out, nil
}

func (p *parser) component() (Component, error) {
	switch p.now.kind(p.family) {
	case prefix:
		return p.prefix()
	case numeric, bitmask:
		return p.terms()
	}
	return Component{}, p.fail("%s has no component of type %d", p.family, uint8(p.now))
}

func (p *parser) prefix() (Component, error) {
	c := Component{Type: p.now}
	head := 1
	if p.family == IPv6 {
		head = 2
	}
	lengths, err := p.take(head, "length")
	if err != nil {
		return c, err
	}
	bits, most := int(lengths[0]), p.family.bits()
	if head == 2 {
		c.Offset = lengths[1]
	}
	if bits > most {
		return c, p.fail("a prefix of %d bits: at most %d", bits, most)
	}
	if c.Offset > 0 && int(c.Offset) >= bits {
		return c, p.fail("offset %d is not below the length %d (RFC 8956 section 3.1)", c.Offset, bits)
	}
	pattern, err := p.take((bits-int(c.Offset)+7)/8, "pattern")
	if err != nil {
		return c, err
	}
	addr := make([]byte, most/8)
	shift(addr, pattern, int(c.Offset))
	ip, _ := netip.AddrFromSlice(addr)
	c.Prefix = netip.PrefixFrom(ip, bits).Masked() // padding is ignored
	return c, nil
}

// shift puts the pattern into addr, bits to the right. What does not fit is padding.
func shift(addr, pattern []byte, bits int) {
	for i, b := range pattern {
		at, by := bits/8+i, bits%8
		if at < len(addr) {
			addr[at] |= b >> by
		}
		if at+1 < len(addr) && by > 0 {
			addr[at+1] |= b << (8 - by)
		}
	}
}

func (p *parser) terms() (Component, error) {
	c := Component{Type: p.now}
	for {
		op, err := p.take(1, "operators")
		if err != nil {
			return c, err
		}
		t := Term{Op: op[0] &^ endOfList}
		if t.octets() > p.now.octets() {
			return c, p.fail("a value of %d octets: at most %d", t.octets(), p.now.octets())
		}
		value, err := p.take(t.octets(), "values")
		if err != nil {
			return c, err
		}
		for _, b := range value {
			t.Value = t.Value<<8 | uint64(b)
		}
		c.Terms = append(c.Terms, t)
		if op[0]&endOfList != 0 {
			return c, nil
		}
	}
}

// Marshal is the NLRI with its length in front. It refuses a rule that Parse would not give back.
func (r Rule) Marshal() ([]byte, error) {
	components, err := r.MarshalComponents()
	if err != nil {
		return nil, err
	}
	if n := len(components); n >= longLength {
		return append(binary.BigEndian.AppendUint16(nil, 0xf000|uint16(n)), components...), nil
	}
	return append([]byte{byte(len(components))}, components...), nil
}

// MarshalComponents is the NLRI without its length: what tells rules of a family apart.
func (r Rule) MarshalComponents() ([]byte, error) {
	var out []byte
	for _, c := range r.Components {
		begin := len(out)
		if out = c.marshal(out, r.Family); out == nil {
			return nil, &Error{Component: c.Type, Offset: begin, Why: "it cannot be written: its prefix, offset or a value is out of range"}
		}
	}
	if _, err := Parse(r.Family, out); err != nil {
		return nil, err
	}
	return out, nil
}

// marshal appends the component; nil: it is none of the family.
func (c Component) marshal(out []byte, f Family) []byte {
	out = append(out, byte(c.Type))
	if c.Type.kind(f) != prefix {
		for i, t := range c.Terms {
			op := t.Op &^ endOfList
			if i == len(c.Terms)-1 {
				op |= endOfList
			}
			if !t.fits() {
				return nil
			}
			var value [8]byte
			binary.BigEndian.PutUint64(value[:], t.Value)
			out = append(append(out, op), value[8-t.octets():]...)
		}
		return out
	}
	addr, bits := c.Prefix.Masked().Addr().AsSlice(), c.Prefix.Bits()
	if len(addr)*8 != f.bits() || bits < 0 || c.Offset > 0 && int(c.Offset) >= bits {
		return nil
	}
	out = append(out, byte(bits))
	if f == IPv6 {
		out = append(out, c.Offset)
	}
	return append(out, pattern(addr, int(c.Offset), bits)...)
}

// pattern are the bits of addr from offset on, padded with zeros: shift's way back.
func pattern(addr []byte, offset, bits int) []byte {
	out := make([]byte, (bits-offset+7)/8)
	for i := range out {
		at, by := offset/8+i, offset%8
		out[i] = addr[at] << by
		if by > 0 && at+1 < len(addr) {
			out[i] |= addr[at+1] >> (8 - by)
		}
	}
	return out
}
