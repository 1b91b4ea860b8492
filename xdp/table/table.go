// Package table brings compiled tables and the box's own addresses into the maps of include/sluice/maps.h. The XDP
// and the tc objects have the same maps, so both subsystems' loaders use it.
package table

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// Names of the maps, as in maps.h.
const (
	Classes  = "classes"
	Rules    = "rules"
	Policies = "policies"
)

// PrefixMap returns the name of the longest-prefix map of a class table.
func PrefixMap(table abi.ClassTable) string {
	return [abi.ClassTables]string{"src4", "dst4", "src6", "dst6"}[table]
}

// Names are those of every map that Fill writes.
func Names() []string {
	names := []string{Classes, Rules, Policies}
	for t := range abi.ClassTables {
		names = append(names, PrefixMap(t))
	}
	return names
}

// chunk bounds what one batch copies: 2 MB of classes, and well within what the kernel allocates at once.
const chunk = 4096

// Resize sets the sizes of the table maps to what t needs, at least 1. It fails where spec lacks one of the maps.
func Resize(spec *ebpf.CollectionSpec, t *classify.Tables) error {
	sizes := map[string]int{Classes: len(t.Classes), Rules: len(t.Rules), Policies: len(t.Policies)}
	for table := range abi.ClassTables {
		sizes[PrefixMap(table)] = len(t.Prefixes[table])
	}
	for name, size := range sizes {
		m, ok := spec.Maps[name]
		if !ok {
			return missing(name)
		}
		m.MaxEntries = uint32(max(size, 1))
	}
	return nil
}

// Fill writes t into maps that Resize has sized. The maps must be fresh: what they hold already stays.
func Fill(maps map[string]*ebpf.Map, t *classify.Tables) error {
	for table := range abi.ClassTables {
		m, ok := maps[PrefixMap(table)]
		if !ok {
			return missing(PrefixMap(table))
		}
		if err := fillPrefixes(m, t.Prefixes[table], table); err != nil {
			return fmt.Errorf("map %s: %w", PrefixMap(table), err)
		}
	}
	return errors.Join(
		fillArray(maps, Classes, t.Classes),
		fillArray(maps, Rules, t.Rules),
		fillArray(maps, Policies, t.Policies),
	)
}

func fillPrefixes(m *ebpf.Map, prefixes []classify.PrefixClass, table abi.ClassTable) error {
	values := make([]uint32, 0, len(prefixes))
	for _, p := range prefixes {
		values = append(values, p.Class)
	}
	if table == abi.ClassSrc4 || table == abi.ClassDst4 {
		keys := make([]abi.Prefix4Key, 0, len(prefixes))
		for _, p := range prefixes {
			keys = append(keys, abi.Prefix4Key{Prefixlen: uint32(p.Prefix.Bits()), Addr: p.Prefix.Addr().As4()})
		}
		return update(m, keys, values)
	}
	keys := make([]abi.Prefix6Key, 0, len(prefixes))
	for _, p := range prefixes {
		keys = append(keys, abi.Prefix6Key{Prefixlen: uint32(p.Prefix.Bits()), Addr: p.Prefix.Addr().As16()})
	}
	return update(m, keys, values)
}

func fillArray[V any](maps map[string]*ebpf.Map, name string, values []V) error {
	m, ok := maps[name]
	if !ok {
		return missing(name)
	}
	keys := make([]uint32, len(values))
	for i := range keys {
		keys[i] = uint32(i)
	}
	if err := update(m, keys, values); err != nil {
		return fmt.Errorf("map %s: %w", name, err)
	}
	return nil
}

// update writes in batches: arrays take them since kernel 5.6, LPM tries since 5.13, both below our floor.
func update[K, V any](m *ebpf.Map, keys []K, values []V) error {
	for at := 0; at < len(keys); at += chunk {
		end := min(at+chunk, len(keys))
		if _, err := m.BatchUpdate(keys[at:end], values[at:end], nil); err != nil {
			return fmt.Errorf("entries %d to %d of %d: %w", at, end-1, len(keys), err)
		}
	}
	return nil
}

func missing(name string) error {
	return fmt.Errorf("the object has no map %q: it was not built from this version's maps.h", name)
}

// SelfKey is the key of the map of own addresses: IPv4 as ::ffff:0:0/96, in network byte order (union addr).
func SelfKey(a netip.Addr) abi.Addr { return a.As16() }

// FillSelf writes the box's own addresses into the map self. Addresses may repeat.
func FillSelf(m *ebpf.Map, own []netip.Addr) error {
	for _, a := range own {
		if err := m.Put(SelfKey(a), uint8(1)); err != nil {
			return fmt.Errorf("map self: %s: %w", a, err)
		}
	}
	return nil
}
