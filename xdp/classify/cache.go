package classify

import (
	"sync"

	"sluice/xdp/abi"
)

// Cache keeps the last compilation, of which most changes of a file leave nearly everything as it is. It saves time and
// never changes a verdict. The zero value is empty; it may be used by several goroutines, one at a time.
type Cache struct {
	mu   sync.Mutex
	last *compiler // nil: there is none
}

// swept is a direction once its lists are known as classes.
type swept struct {
	*side
	space    [2][]boundary // by family, IPv4 first
	prefixes int
	flags    []uint32 // CLASS_* by class
	wide     []bool   // classes that have a wide bucket
	tables   [2]*prefixTable
}

// sweep makes the classes of a direction's lists.
func (s *side) sweep() (*swept, error) {
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

// forget drops what only a sweep needs.
func (s *side) forget() {
	s.byParent, s.bySet, s.groups = nil, nil, nil
	for n := range s.lists {
		s.lists[n].rule = nil
		s.lists[n].laid = s.lists[n].prefixes
		s.lists[n].unsorted = !inOrder(s.lists[n].prefixes)
	}
}

// values are what packets get to know of classes.
func (s *swept) values() []uint32 {
	values := make([]uint32, len(s.flags))
	for class, flags := range s.flags {
		values[class] = uint32(class) | flags
	}
	return values
}

// tableOf is the number of a table by direction, source first, and family, IPv4 first.
func tableOf(direction, family int) abi.ClassTable { return abi.ClassTable(2*family + direction) }
