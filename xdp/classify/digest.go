package classify

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
)

// Digest writes into h what policies say, so that different policies give different sums. A list that several rules
// share is read once: it may hold a million prefixes.
func Digest(h hash.Hash, policies []Policy) {
	d := digester{buffered: bufio.NewWriterSize(h, 1<<16), lists: map[sliceID][sha256.Size]byte{}}
	d.number(uint64(len(policies)))
	for i := range policies {
		d.policy(&policies[i])
	}
	_ = d.buffered.Flush() // a hash takes everything
}

type digester struct {
	buffered *bufio.Writer
	lists    map[sliceID][sha256.Size]byte
	scratch  []byte
}

func (d *digester) number(n uint64) {
	d.scratch = binary.AppendUvarint(d.scratch[:0], n)
	_, _ = d.buffered.Write(d.scratch)
}

func (d *digester) flag(b bool) {
	n := uint64(0)
	if b {
		n = 1
	}
	d.number(n)
}

func (d *digester) text(s string) {
	d.number(uint64(len(s)))
	_, _ = d.buffered.WriteString(s)
}

func (d *digester) policy(p *Policy) {
	d.text(p.Name)
	d.number(uint64(p.Default))
	d.number(uint64(p.DefaultID))
	d.number(uint64(p.Fragments))
	d.number(uint64(len(p.Rules)))
	for i := range p.Rules {
		d.rule(&p.Rules[i])
	}
}

// rule writes every field: a test sets each and looks whether the digest changes.
func (d *digester) rule(r *Rule) {
	d.number(uint64(r.ID))
	d.text(r.Name)
	d.number(uint64(r.Protocol + 1)) // AnyProtocol is -1
	d.conditions(r)
	d.number(uint64(r.Action))
	d.number(uint64(r.Argument))
	d.number(uint64(r.Sample))
	d.flag(r.Shadow)
	d.ranges(r.Ports)
	d.ranges(r.SourcePorts)
	for _, list := range [][]netip.Prefix{r.From, r.To, r.NotFrom, r.NotTo} {
		d.prefixes(list)
	}
}

// length keeps nil, which is any, and empty, which is none, apart.
func (d *digester) length(n int, isNil bool) {
	if isNil {
		d.number(0)
		return
	}
	d.number(uint64(n) + 1)
}

// conditions are those beside addresses, protocol and ports.
func (d *digester) conditions(r *Rule) {
	for _, n := range []uint64{uint64(r.TCPMask), uint64(r.TCPFlags), uint64(r.Fragment), r.DSCP, uint64(r.TTL)} {
		d.number(n)
	}
	d.ranges(r.VLANs)
	d.ranges(r.Lengths)
	d.length(len(r.ICMPTypes), r.ICMPTypes == nil)
	for _, i := range r.ICMPTypes {
		for _, n := range []uint8{i.TypeFirst, i.TypeLast, i.CodeFirst, i.CodeLast} {
			d.number(uint64(n))
		}
	}
	d.length(len(r.Interfaces), r.Interfaces == nil)
	for _, i := range r.Interfaces {
		d.text(i.Name)
		d.number(uint64(i.Index))
	}
}

func (d *digester) ranges(list []Range) {
	d.length(len(list), list == nil)
	for _, r := range list {
		d.number(uint64(r.First))
		d.number(uint64(r.Last))
	}
}

func (d *digester) prefixes(list []netip.Prefix) {
	d.length(len(list), list == nil)
	if len(list) == 0 {
		return
	}
	id := sliceID{&list[0], len(list)}
	if len(list) < longList {
		for _, p := range list {
			d.scratch = appendPrefix(d.scratch[:0], p)
			_, _ = d.buffered.Write(d.scratch)
		}
		return
	}
	sum, known := d.lists[id]
	if !known {
		text := make([]byte, 0, 18*len(list))
		for _, p := range list {
			text = appendPrefix(text, p)
		}
		sum = sha256.Sum256(text)
		d.lists[id] = sum
	}
	_, _ = d.buffered.Write(sum[:])
}

// appendPrefix appends 18 bytes: the length, the family, and the address with IPv4 as ::ffff:0:0/96.
func appendPrefix(to []byte, p netip.Prefix) []byte {
	family, raw := byte(4), p.Addr().As16()
	if p.Addr().Is6() {
		family = 6
	}
	return append(append(to, byte(p.Bits()), family), raw[:]...)
}
