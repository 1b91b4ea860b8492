package fib

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// path is what a source said of a prefix.
type path struct {
	from    Source
	nextHop netip.Addr // invalid: nothing any more
}

func (s Source) compare(with Source) int {
	return cmp.Or(s.Neighbor.Compare(with.Neighbor), cmp.Compare(s.PathID, with.PathID))
}

// pathSet is what all sources said of a prefix; nil: nothing. Nearly all prefixes of a full table have one of a few sets, so equal ones are
// one, which is never changed: a pointer a prefix, where a map of one entry takes some 300 octets.
type pathSet struct {
	key      string
	paths    []path       // one of each source, sorted by it
	nextHops []netip.Addr // distinct and sorted: the same paths give the same route
	prefixes int          // that have it
	chosen   *choice      // for them; the writer's alone
}

// changed are the paths that follow when a source says something else.
func (s *pathSet) changed(by path) []path {
	var out []path
	if s != nil {
		out = slices.Clone(s.paths)
	}
	i, there := slices.BinarySearchFunc(out, by.from, func(one path, from Source) int { return one.from.compare(from) })
	switch {
	case there && by.nextHop.IsValid():
		out[i] = by
	case there:
		out = slices.Delete(out, i, i+1)
	case by.nextHop.IsValid():
		out = slices.Insert(out, i, by)
	}
	return out
}

// pathSets are those that some prefix has.
type pathSets struct {
	keyed   map[string]*pathSet
	changes map[change]*pathSet // what became of a set, as far as all of these are still there
	uses    map[netip.Addr]int  // sets by next hop
	turn    int                 // counts sets that came or went
}

type change struct {
	was *pathSet
	by  path
}

// mostChanges is more than a few neighbors that announce the same need.
const mostChanges = 64

func newPathSets() pathSets {
	return pathSets{keyed: map[string]*pathSet{}, changes: map[change]*pathSet{}, uses: map[netip.Addr]int{}}
}

// follow is the set of a prefix after a change.
func (s *pathSets) follow(was *pathSet, by path) *pathSet {
	is, known := s.changes[change{was, by}]
	if !known {
		is = s.of(was.changed(by))
		if len(s.changes) >= mostChanges {
			clear(s.changes)
		}
		s.changes[change{was, by}] = is
	}
	if is != nil {
		is.prefixes++
	}
	if was != nil {
		if was.prefixes--; was.prefixes == 0 {
			s.drop(was)
		}
	}
	return is
}

// of is the set of these paths, which nobody changes after that.
func (s *pathSets) of(paths []path) *pathSet {
	if len(paths) == 0 {
		return nil
	}
	var key []byte
	for _, p := range paths {
		key = appendAddr(appendAddr(binary.NativeEndian.AppendUint32(key, p.from.PathID), p.from.Neighbor), p.nextHop)
	}
	if one := s.keyed[string(key)]; one != nil {
		return one
	}
	one := &pathSet{key: string(key), paths: paths}
	for _, p := range paths {
		one.nextHops = append(one.nextHops, p.nextHop)
	}
	slices.SortFunc(one.nextHops, netip.Addr.Compare)
	one.nextHops = slices.Compact(one.nextHops)
	s.keyed[one.key] = one
	s.turn++
	for _, addr := range one.nextHops {
		s.uses[addr]++
	}
	return one
}

// ends says whether whoever told of a next hop is dead.
func (s *pathSets) ends(nextHop netip.Addr, dead map[netip.Addr]struct{}) bool {
	told := false
	for _, one := range s.keyed {
		for _, p := range one.paths {
			if p.nextHop != nextHop {
				continue
			}
			if _, is := dead[p.from.Neighbor]; !is {
				return false
			}
			told = true
		}
	}
	return told
}

func (s *pathSets) drop(one *pathSet) {
	delete(s.keyed, one.key)
	clear(s.changes)
	s.turn++
	for _, addr := range one.nextHops {
		if s.uses[addr]--; s.uses[addr] == 0 {
			delete(s.uses, addr)
		}
	}
}

// appendAddr writes an address so that what follows cannot be taken for a part of it.
func appendAddr(b []byte, addr netip.Addr) []byte {
	text, _ := addr.MarshalBinary() // of an address there are no errors
	return append(binary.NativeEndian.AppendUint16(b, uint16(len(text))), text...)
}
