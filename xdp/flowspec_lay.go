package xdp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/table"
	"sluice/xdp/xsk"
)

// layout is what one half of the overlay is to hold.
type layout struct {
	half      uint32
	entries   []abi.FlowspecEntry
	protocols [2 * 256]abi.FlowspecSet // of IPv4, then of IPv6
	dst, src  sides
	slots     map[uint64]uint32
	keys      map[string]uint32
	fresh     []uint32 // slots that were nobody's
}

// sides are the entries by a prefix of one side, both families.
type sides struct {
	own  map[netip.Prefix]*abi.FlowspecSet // with this very prefix
	any  [2]abi.FlowspecSet                // of a family that say nothing of this side
	used bool
}

func (l *layout) live() uint64 {
	words := uint64(len(l.entries)+63) / 64
	if words == 0 {
		return 0 // and the half is 0
	}
	out := words<<8 | uint64(l.half)
	if l.dst.used {
		out |= abi.FlowspecByDst
	}
	if l.src.used {
		out |= abi.FlowspecBySrc
	}
	return out
}

// lay works out the half that is not live.
func (f *FlowSpec) lay(filters []FlowSpecFilter) (*layout, error) {
	l := &layout{half: 1 - f.half(), slots: map[uint64]uint32{}, keys: map[string]uint32{},
		dst: sides{own: map[netip.Prefix]*abi.FlowspecSet{}}, src: sides{own: map[netip.Prefix]*abi.FlowspecSet{}}}
	if len(filters) == 0 {
		l.half = 0
	}
	taken := make([]bool, abi.MaxFlowspec+1)
	for i := range filters {
		if slot, ok := f.slots[keyHash(filters[i].Key)]; ok {
			taken[slot] = true
		}
	}
	next := uint32(1)
	for i := range filters {
		hash := keyHash(filters[i].Key)
		slot, ok := f.slots[hash]
		if !ok {
			for next <= abi.MaxFlowspec && taken[next] {
				next++
			}
			if next > abi.MaxFlowspec {
				return nil, fmt.Errorf("filter %s: %w", filters[i].Key, ErrFlowSpecFull)
			}
			slot, taken[next] = next, true
			l.fresh = append(l.fresh, slot)
		}
		l.slots[hash], l.keys[filters[i].Key] = slot, slot
		if err := l.add(&filters[i], slot, hash); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// add appends the entries of a filter.
func (l *layout) add(f *FlowSpecFilter, slot uint32, hash uint64) error {
	e := abi.FlowspecEntry{UntilNs: uint64(f.Until), Key: hash}
	flag := func(on bool, bit uint8) {
		if on {
			e.Does |= bit
		}
	}
	flag(f.Drop, abi.FlowspecDrops)
	flag(f.Blackhole, abi.FlowspecBlackholes)
	flag(f.GoesOn, abi.FlowspecGoesOn)
	flag(f.DSCP != nil, abi.FlowspecMarks)
	flag(f.Packets != nil || f.Bytes != nil, abi.FlowspecLimits)
	flag(f.Sample, abi.FlowspecSamples)
	flag(f.Socket != "", abi.FlowspecRedirects)
	if f.Socket != "" {
		e.Socket = xsk.ID(f.Socket)
	}
	if f.DSCP != nil {
		e.DSCP = *f.DSCP
	}
	for i, limiter := range []*classify.Limiter{f.Packets, f.Bytes} {
		if limiter != nil {
			e.Limiter[i] = limiter.Entry()
			e.Limiter[i].Rule = 2*slot + uint32(i)
		}
	}
	for i := range f.Rules {
		r := &f.Rules[i]
		for _, rule := range classify.Entries(r) {
			if len(l.entries) == abi.MaxFlowspec {
				return fmt.Errorf("filter %s: %w", f.Key, ErrFlowSpecFull)
			}
			e.Rule = rule
			e.Rule.ID = slot
			l.place(uint32(len(l.entries)), r, f.Protocols)
			l.entries = append(l.entries, e)
		}
	}
	return nil
}

// place puts an entry into the sets that lead to it.
func (l *layout) place(n uint32, r *classify.Rule, protocols []uint8) {
	of := families(r)
	for six, holds := range of {
		for protocol := range 256 {
			if holds && (r.Protocol == classify.AnyProtocol || r.Protocol == protocol) &&
				(protocols == nil || slices.Contains(protocols, uint8(protocol))) {
				put(&l.protocols[six*256+protocol], n)
			}
		}
	}
	l.dst.place(n, r.To, of)
	l.src.place(n, r.From, of)
}

// families says of which ones a rule is: of those of its addresses, or of both.
func families(r *classify.Rule) [2]bool {
	of := [2]bool{true, true}
	for _, list := range [][]netip.Prefix{r.From, r.To} {
		if list == nil {
			continue
		}
		var here [2]bool
		for _, p := range list {
			here[family(p)] = true
		}
		of[0], of[1] = of[0] && here[0], of[1] && here[1]
	}
	return of
}

func family(p netip.Prefix) int {
	if p.Addr().Is6() {
		return 1
	}
	return 0
}

func (s *sides) place(n uint32, prefixes []netip.Prefix, of [2]bool) {
	if prefixes == nil {
		for six, holds := range of {
			if holds {
				put(&s.any[six], n)
			}
		}
		return
	}
	s.used = true
	for _, p := range prefixes {
		p = p.Masked()
		if s.own[p] == nil {
			s.own[p] = &abi.FlowspecSet{}
		}
		put(s.own[p], n)
	}
}

// sets are what the tries of one side hold: with each prefix all entries that hold for it, those of what contains it too. Each
// family has a /0.
func (s *sides) sets() map[netip.Prefix]*abi.FlowspecSet {
	out := map[netip.Prefix]*abi.FlowspecSet{}
	for six, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		all := s.any[six]
		out[netip.PrefixFrom(a, 0)] = &all
	}
	for p := range s.own {
		set := s.any[family(p)]
		out[p] = &set
	}
	for p, set := range out {
		for bits := p.Bits(); bits >= 0; bits-- {
			around, _ := p.Addr().Prefix(bits) // the lengths are its own
			if own := s.own[around]; own != nil {
				for i, word := range own.Word {
					set.Word[i] |= word
				}
			}
		}
	}
	return out
}

func put(set *abi.FlowspecSet, n uint32) { set.Word[n/64] |= 1 << (n % 64) }

// write fills the half, and the counters and buckets of slots that were nobody's.
func (f *FlowSpec) write(l *layout) error {
	for _, slot := range l.fresh {
		if err := f.maps[table.FlowSpecHits].Put(slot, f.zero); err != nil {
			return err
		}
		for bucket := 2 * slot; bucket < 2*slot+2; bucket++ {
			if err := f.maps[table.FlowSpecBuckets].Put(bucket, abi.LimitBucket{}); err != nil {
				return err
			}
		}
	}
	if len(l.entries) == 0 {
		return nil
	}
	if err := putRange(f.maps[table.FlowSpecEntries], l.half*abi.MaxFlowspec, l.entries); err != nil {
		return err
	}
	if err := putRange(f.maps[table.FlowSpecProtocols], l.half<<9, l.protocols[:]); err != nil {
		return err
	}
	for _, side := range []struct {
		sides
		four, six *ebpf.Map
	}{
		{l.dst, f.maps[table.FlowSpecDst4], f.maps[table.FlowSpecDst6]},
		{l.src, f.maps[table.FlowSpecSrc4], f.maps[table.FlowSpecSrc6]},
	} {
		if !side.used {
			continue
		}
		for p, set := range side.sets() {
			var err error
			if family(p) == 0 {
				err = side.four.Put(prefixKey4(l.half, p), set)
			} else {
				err = side.six.Put(prefixKey6(l.half, p), set)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	return nil
}

// putRange writes elements of an array from one on.
func putRange[V any](m *ebpf.Map, from uint32, values []V) error {
	keys := make([]uint32, len(values))
	for i := range keys {
		keys[i] = from + uint32(i)
	}
	_, err := m.BatchUpdate(keys, values, nil)
	return err
}
