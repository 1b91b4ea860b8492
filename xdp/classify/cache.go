package classify

import (
	"net/netip"
	"slices"
	"sync"

	"sluice/xdp/abi"
)

// Cache keeps what the last compilation made of the address lists, which most changes of a file leave as they are. It
// saves time and never changes an outcome. The zero value is empty; it may be used by several goroutines, one at a time.
type Cache struct {
	mu   sync.Mutex
	last [2]*swept // by direction
}

// swept is a direction once its lists are known as classes. Nothing of it is written any more but for what side.set adds.
type swept struct {
	*side
	space    [2][]boundary // by family, IPv4 first
	prefixes int
	flags    []uint32 // CLASS_* by class that the tables were made with; nil: there are none yet
	tables   [2]*prefixTable
}

// sweep returns the classes of a direction's lists: those of the last time where the lists are the same.
func (s *side) sweep(last *swept) (*swept, error) {
	if last != nil && slices.EqualFunc(last.lists, s.lists, func(a, b list) bool { return samePrefixes(a.prefixes, b.prefixes) }) {
		for n := range s.lists { // the newer memory: what the older belonged to can go
			last.lists[n].prefixes = s.lists[n].prefixes
		}
		return last, nil
	}
	out := &swept{side: s}
	for family := range out.space {
		var n int
		var err error
		if out.space[family], n, err = s.sweepFamily(family == 1); err != nil {
			return nil, err
		}
		out.prefixes += n
	}
	s.index()
	s.forget()
	return out, nil
}

func samePrefixes(a, b []netip.Prefix) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// forget drops what only a sweep needs.
func (s *side) forget() {
	s.byOne, s.bySlice, s.byParent, s.bySet, s.groups = nil, nil, nil, nil, nil
	for n := range s.lists {
		s.lists[n].rule = nil
	}
}

// prefixTables returns the tables of both families, where classes have these flags.
func (s *swept) prefixTables(flags []uint32) [2]*prefixTable {
	if s.flags == nil || !slices.Equal(s.flags, flags) {
		values := make([]uint32, len(flags))
		for class, f := range flags {
			values[class] = uint32(class) | f
		}
		for family := range s.tables {
			s.tables[family] = newPrefixTable(s.space[family], family == 1, values)
		}
		s.flags = flags
	}
	return s.tables
}

// tableOf is the number of a table by direction, source first, and family, IPv4 first.
func tableOf(direction, family int) abi.ClassTable { return abi.ClassTable(2*family + direction) }
