package classify

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
	"unsafe"
)

// Sums remembers what it has read, so that lists and rules that several digests share are read once: there may be a
// million of them. It knows them by their memory, which must not change meanwhile.
type Sums struct {
	lists, listsBefore map[sliceID]sum
	rules, rulesBefore map[string]*rulesSum // by policy
	objects            map[*byte]sum        // by their first byte
}

type sum [sha256.Size]byte

// rulesSum is the sum of the sums of rules: of a list that changed little, little is read.
type rulesSum struct {
	of    []Rule
	each  []ruleSum
	whole sum
	long  []sliceID // lists whose sums stand apart
}

type ruleSum [16]byte

// NewSums returns one that has read nothing.
func NewSums() *Sums { return (*Sums)(nil).Next() }

// Next returns one for the next round of digests. It makes use of what was read in this one, which may be nil, and not
// of what was read before.
func (s *Sums) Next() *Sums {
	out := &Sums{lists: map[sliceID]sum{}, rules: map[string]*rulesSum{}, objects: map[*byte]sum{}}
	if s != nil {
		out.listsBefore, out.rulesBefore, out.objects = s.lists, s.rules, s.objects
	}
	return out
}

// Object writes the sum of an object file, which is never changed and always the same memory.
func (s *Sums) Object(h hash.Hash, object []byte) {
	of, known := s.objects[&object[0]]
	if !known {
		of = sha256.Sum256(object)
		s.objects[&object[0]] = of
	}
	_, _ = h.Write(of[:])
}

// Digest writes into h what policies say, so that different policies give different sums.
func (s *Sums) Digest(h hash.Hash, policies []Policy) {
	d := digester{bufio.NewWriter(h), s, nil}
	d.number(uint64(len(policies)))
	for i := range policies {
		d.policy(&policies[i])
	}
	_ = d.buffered.Flush() // a hash takes everything
}

// ofRules returns the sum of the rules of a policy.
func (s *Sums) ofRules(policy string, rules []Rule) sum {
	for _, known := range []*rulesSum{s.rules[policy], s.rulesBefore[policy]} {
		if known != nil && len(known.of) == len(rules) && unsafe.SliceData(known.of) == unsafe.SliceData(rules) {
			s.rules[policy] = known
			s.keepLists(known.long)
			return known.whole
		}
	}
	former := s.rulesBefore[policy]
	if former == nil {
		former = &rulesSum{}
	}
	out := &rulesSum{of: rules, each: make([]ruleSum, 0, len(rules))}
	h := sha256.New()
	d := digester{bufio.NewWriter(h), s, nil}
	at := 0
	edits := Edits(former.of, rules, sameRule)
	for _, e := range edits {
		out.each = append(out.each, former.each[at:e.Before]...)
		for n := e.Now; n < e.Now+e.Added; n++ {
			var one sum
			h.Reset()
			d.rule(&rules[n])
			_ = d.buffered.Flush()
			out.each = append(out.each, ruleSum(h.Sum(one[:0])[:len(ruleSum{})]))
		}
		at = e.Before + e.Removed
	}
	out.each = append(out.each, former.each[at:]...)
	h.Reset()
	for n := range out.each {
		_, _ = d.buffered.Write(out.each[n][:])
	}
	_ = d.buffered.Flush()
	h.Sum(out.whole[:0])
	s.rules[policy] = out
	out.long = former.long
	for _, e := range edits {
		if len(longLists(former.of[e.Before:e.Before+e.Removed])) > 0 {
			out.long = longLists(rules) // some may be gone
			break
		}
		out.long = append(out.long[:len(out.long):len(out.long)], longLists(rules[e.Now:e.Now+e.Added])...)
	}
	s.keepLists(out.long)
	return out.whole
}

type digester struct {
	buffered *bufio.Writer
	sums     *Sums
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
	of := d.sums.ofRules(p.Name, p.Rules)
	_, _ = d.buffered.Write(of[:])
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
	of, known := d.sums.lists[id]
	if !known {
		if of, known = d.sums.listsBefore[id]; !known {
			of = sumOfList(list)
		}
		d.sums.lists[id] = of
	}
	_, _ = d.buffered.Write(of[:])
}

func sumOfList(list []netip.Prefix) (of sum) {
	h := sha256.New()
	text := make([]byte, 0, 1<<16)
	for _, p := range list {
		if text = appendPrefix(text, p); len(text) > cap(text)-18 {
			_, _ = h.Write(text)
			text = text[:0]
		}
	}
	_, _ = h.Write(text)
	return sum(h.Sum(of[:0]))
}

// appendPrefix appends the length and the address; of IPv6 behind a byte that is no length of IPv4.
func appendPrefix(to []byte, p netip.Prefix) []byte {
	if a := p.Addr(); a.Is4() {
		raw := a.As4()
		return append(append(to, byte(p.Bits())), raw[:]...)
	}
	raw := p.Addr().As16()
	return append(append(to, 0xff, byte(p.Bits())), raw[:]...)
}

// longLists are those of rules whose sums stand apart.
func longLists(rules []Rule) (out []sliceID) {
	for i := range rules {
		r := &rules[i]
		for _, list := range [...][]netip.Prefix{r.From, r.To, r.NotFrom, r.NotTo} {
			if len(list) < longList {
				continue
			}
			if id := (sliceID{&list[0], len(list)}); len(out) == 0 || out[len(out)-1] != id { // neighbours often have the same
				out = append(out, id)
			}
		}
	}
	return out
}

// keepLists carries sums over from the round before: their lists may not have been read in this one.
func (s *Sums) keepLists(lists []sliceID) {
	for _, id := range lists {
		if of, known := s.listsBefore[id]; known {
			s.lists[id] = of
		}
	}
}
