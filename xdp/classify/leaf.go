package classify

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"sluice/xdp/abi"
)

// leaves writes leaves and lists, each content once. Word 0 stays unused: reference 0 is nothing.
type leaves struct {
	rules []abi.Rule
	words []uint64
	known map[string]uint32
	walk  int // entries of the longest list
	runs  int // of the longest leaf
}

func newLeaves(rules []abi.Rule) *leaves {
	return &leaves{rules: rules, words: make([]uint64, 1), known: map[string]uint32{}}
}

// tooLong says that a list would keep a packet too long; entry is the first that does not fit.
type tooLong struct {
	entry uint32
	needs int
}

func (tooLong) Error() string { return "a list is too long" }

// portSpan is a range of port keys, without end, that an entry takes part in.
type portSpan struct{ first, end uint32 }

// withPorts are the protocols whose ports the parser reads. No packet of another one matches an entry with ports, unless
// it hides them, and none has its port key taken by such an entry.
var withPorts = [...]uint32{6, 17, 132, 136}

// portSpans are where a packet's port key may be, where the entry matches.
func portSpans(r *abi.Rule) []portSpan {
	var out []portSpan
	seesHidden := r.Flags&abi.RuleTransport == 0 || r.Flags&abi.RuleHidden != 0
	low, high := uint32(0), uint32(0xffff)
	if r.Flags&abi.RulePorts != 0 {
		low, high = uint32(r.Ports.First), uint32(r.Ports.Last)
	}
	at := func(protocol uint32) portSpan { return portSpan{protocol<<16 | low, protocol<<16 | high + 1} }
	switch {
	case r.Flags&abi.RuleAnyProtocol == 0:
		if r.Flags&abi.RulePorts == 0 || slices.Contains(withPorts[:], uint32(r.Protocol)) {
			out = append(out, at(uint32(r.Protocol)))
		}
		if seesHidden {
			hidden := abi.PortKeyHidden | uint32(r.Protocol)
			out = append(out, portSpan{hidden, hidden + 1})
		}
		return out
	case r.Flags&abi.RulePorts == 0:
		out = append(out, portSpan{0, abi.PortKeyHidden})
	default:
		for _, protocol := range withPorts {
			out = append(out, at(protocol))
		}
	}
	if seesHidden {
		out = append(out, portSpan{abi.PortKeyHidden, abi.PortKeyEnd})
	}
	return out
}

// byPortKey are the conditions that a port key has answered.
const byPortKey = abi.RuleAnyProtocol | abi.RulePorts | abi.RuleHidden

// decides says whether an entry certainly ends the search where the given conditions hold: it acts, and has no other.
func decides(r *abi.Rule, conditions uint32) bool { return r.Flags&^(conditions|abi.RulePlain) == 0 }

// leaf writes a leaf of ascending entries and returns its found reference.
func (l *leaves) leaf(entries []uint32) (uint32, error) {
	if len(entries) == 1 {
		l.walk = max(l.walk, 1)
		return abi.LeafEntry | entries[0], nil
	}
	runs, err := l.split(entries)
	if err != nil {
		return 0, err
	}
	if runs == nil { // lists that overlap too much: one for all
		list, err := l.list(entries)
		if err != nil {
			return 0, err
		}
		runs = []uint64{uint64(list)}
	}
	l.runs = max(l.runs, len(runs))
	half := uint64(0) // where the binary search begins: the greatest power of two below the number of runs
	if len(runs) > 1 {
		half = 1 << (bits.Len(uint(len(runs)-1)) - 1)
	}
	return l.write(append([]uint64{half<<32 | uint64(len(runs))}, runs...)), nil
}

func (l *leaves) list(entries []uint32) (uint32, error) {
	switch {
	case len(entries) == 0:
		return 0, nil
	case len(entries) > abi.MaxWalk:
		return 0, tooLong{entries[abi.MaxWalk] & abi.EntryNumber, len(entries)}
	}
	l.walk = max(l.walk, len(entries))
	if len(entries) == 1 {
		return abi.LeafEntry | entries[0], nil // with its ENTRY_SURE
	}
	words := make([]uint64, len(entries))
	for i, e := range entries {
		words[i] = uint64(e) | abi.ListMore
	}
	words[len(words)-1] &^= abi.ListMore
	return l.write(words), nil
}

// lineWords is a cache line: what fits into one takes one load.
const lineWords = 8

func (l *leaves) write(words []uint64) uint32 {
	text := make([]byte, 0, 8*len(words))
	for _, w := range words {
		text = binary.NativeEndian.AppendUint64(text, w)
	}
	at, ok := l.known[string(text)]
	if !ok {
		if n := len(l.words) % lineWords; len(words) <= lineWords && n+len(words) > lineWords {
			l.words = append(l.words, make([]uint64, lineWords-n)...)
		}
		at = uint32(len(l.words))
		l.known[string(text)] = at
		l.words = append(l.words, words...)
	}
	return at
}

// portEvent is where an entry's span begins or ends.
type portEvent struct {
	at    uint32
	entry uint32
	ends  bool
}

// split cuts the port keys where the entries of a leaf change, and gives each run its list, up to the first entry that
// certainly decides. It returns nil where the lists together would be far longer than the leaf.
func (l *leaves) split(entries []uint32) ([]uint64, error) {
	var events []portEvent
	for _, e := range entries {
		for _, span := range portSpans(&l.rules[e]) {
			events = append(events, portEvent{span.first, e, false}, portEvent{span.end, e, true})
		}
	}
	slices.SortFunc(events, func(a, b portEvent) int { return cmp.Compare(a.at, b.at) })
	budget := 64*len(entries) + 4096
	var active activeEntries
	var runs []uint64
	last, at := uint32(0), uint32(0)
	for i := 0; at < abi.PortKeyEnd; {
		for ; i < len(events) && events[i].at == at; i++ {
			active.change(&l.rules[events[i].entry], events[i])
		}
		list := active.list(l.rules, at)
		if budget -= len(list); budget < 0 && len(entries) <= abi.MaxWalk {
			return nil, nil
		}
		found, err := l.list(list)
		if err != nil {
			return nil, err
		}
		if found != last || len(runs) == 0 {
			runs = append(runs, uint64(at)<<32|uint64(found))
			last = found
		}
		at = abi.PortKeyEnd
		if i < len(events) {
			at = events[i].at
		}
	}
	return runs, nil
}

// activeEntries are those whose span holds where a sweep is.
type activeEntries struct {
	perhaps, surely []uint32 // sorted; surely are those that decide
	scratch         []uint32
}

func (a *activeEntries) change(r *abi.Rule, e portEvent) {
	in := &a.perhaps
	if decides(r, byPortKey) {
		in = &a.surely
	}
	n, _ := slices.BinarySearch(*in, e.entry)
	if e.ends {
		*in = slices.Delete(*in, n, n+1)
	} else {
		*in = slices.Insert(*in, n, e.entry)
	}
}

// list returns the entries to try at a port key, in order. It is valid until the next call.
func (a *activeEntries) list(rules []abi.Rule, at uint32) []uint32 {
	if len(a.surely) == 0 {
		return a.perhaps
	}
	n, _ := slices.BinarySearch(a.perhaps, a.surely[0])
	last := a.surely[0]
	if at < abi.PortKeyHidden || rules[last].Flags&abi.RulePorts == 0 { // else it decides, but not as a rule
		last |= abi.EntrySure
	}
	a.scratch = append(append(a.scratch[:0], a.perhaps[:n]...), last)
	return a.scratch
}
