package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// ErrBansFull says that no more bans fit.
var ErrBansFull = fmt.Errorf("%d bans are in place and no more fit: lift some, ban their common prefix, or drop a set of them by a rule",
	abi.MaxBans)

// Bans is the table of banned sources that the programs of both hooks look into. It is state: a generation neither
// brings nor takes it, and it outlives the daemon. Times are on CLOCK_BOOTTIME, since the machine booted. It is not safe
// for concurrent use.
type Bans struct {
	path  string // of the pins
	maps  map[string]*ebpf.Map
	state abi.BanState
	held  map[netip.Prefix]abi.Ban
	free  []uint32 // slots of counters, the next one last
	zero  []abi.BanHit
}

// BanHits is what a ban has dropped.
type BanHits struct {
	Packets uint64
	Last    time.Duration // since the machine booted; 0: never
}

// OpenBans opens the table in a directory of pins, and makes what is missing. It knows what an earlier process left.
func OpenBans(path string) (*Bans, error) {
	dir, err := pin.Open(path)
	if err != nil {
		return nil, err
	}
	spec, err := loadIngress()
	if err != nil {
		return nil, err
	}
	b := &Bans{path: path, held: map[netip.Prefix]abi.Ban{}, zero: make([]abi.BanHit, ebpf.MustPossibleCPU())}
	if b.maps, err = table.OpenState(dir, spec, table.BanState, table.Bans, table.Bans4, table.Bans6, table.BanHits); err != nil {
		return nil, err
	}
	if err := b.adopt(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Repin is table.Repin.
func (b *Bans) Repin() error { return table.Repin(b.path, b.maps) }

// adopt reads what is there. Counts are taken anew: a process that died in between may have left them too high, which
// costs a look-up, and never too low.
func (b *Bans) adopt() error {
	if err := b.maps[table.BanState].Lookup(uint32(0), &b.state); err != nil {
		return fmt.Errorf("map of bans: %w", err)
	}
	err := errors.Join(
		adopt(b, table.Bans, func(key abi.Addr, v abi.Ban) netip.Prefix {
			a := netip.AddrFrom16(key).Unmap()
			return netip.PrefixFrom(a, a.BitLen())
		}),
		adopt(b, table.Bans4, func(key abi.Prefix4Key, v abi.Ban) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4(key.Addr), int(v.Bits))
		}),
		adopt(b, table.Bans6, func(key abi.Prefix6Key, v abi.Ban) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom16(key.Addr), int(v.Bits))
		}),
	)
	used := make([]bool, abi.MaxBans+1)
	b.state.Addresses, b.state.Prefixes4, b.state.Prefixes6 = 0, 0, 0
	for p, v := range b.held {
		used[min(v.Slot, abi.MaxBans)] = true
		*b.count(p)++
	}
	for slot := uint32(abi.MaxBans); slot > 0; slot-- {
		if !used[slot] {
			b.free = append(b.free, slot)
		}
	}
	return errors.Join(err, b.writeState())
}

func adopt[K any](b *Bans, name string, prefix func(K, abi.Ban) netip.Prefix) error {
	var (
		key K
		v   abi.Ban
	)
	entries := b.maps[name].Iterate()
	for entries.Next(&key, &v) {
		b.held[prefix(key, v)] = v
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("map %s: %w", name, err)
	}
	return nil
}

// Loaded says whether the table was filled by an earlier process since it was made: then it tells what is banned, and
// a file only why.
func (b *Bans) Loaded() bool { return b.state.Loaded != 0 }

// SetLoaded notes that the table holds all that it should.
func (b *Bans) SetLoaded() error {
	b.state.Loaded = 1
	return b.writeState()
}

// All returns the end of every ban that is in the table, swept or not; 0 is no end.
func (b *Bans) All() map[netip.Prefix]time.Duration {
	out := make(map[netip.Prefix]time.Duration, len(b.held))
	for p, v := range b.held {
		out[p] = time.Duration(v.UntilNs)
	}
	return out
}

// Set bans a source until a time since the machine booted, 0 for no end; one that is banned gets the new end and keeps
// its counter. The next packet is dropped. ErrBansFull. The prefix is masked and, for IPv4, not mapped.
func (b *Bans) Set(p netip.Prefix, until time.Duration) error {
	v, known := b.held[p]
	if !known {
		if len(b.free) == 0 {
			return ErrBansFull
		}
		v = abi.Ban{Slot: b.free[len(b.free)-1], Bits: uint8(p.Bits())}
		if err := b.maps[table.BanHits].Put(v.Slot, b.zero); err != nil {
			return fmt.Errorf("counter of a ban: %w", err)
		}
		// Ahead of the entry: while the count is too low the programs would not look.
		*b.count(p)++
		if err := b.writeState(); err != nil {
			*b.count(p)--
			return err
		}
	}
	v.UntilNs = uint64(until)
	m, key := b.place(p)
	if err := m.Put(key, v); err != nil {
		if !known {
			*b.count(p)--
			err = errors.Join(err, b.writeState())
		}
		return fmt.Errorf("ban of %s: %w", p, err)
	}
	if !known {
		b.free = b.free[:len(b.free)-1]
	}
	b.held[p] = v
	return nil
}

// Remove lifts a ban. One that is not there is no error.
func (b *Bans) Remove(p netip.Prefix) error {
	v, known := b.held[p]
	if !known {
		return nil
	}
	m, key := b.place(p)
	if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("lift the ban of %s: %w", p, err)
	}
	delete(b.held, p)
	b.free = append(b.free, v.Slot)
	*b.count(p)--
	return b.writeState()
}

// Hits reads the counter of a ban.
func (b *Bans) Hits(p netip.Prefix) (BanHits, error) {
	var out BanHits
	v, known := b.held[p]
	if !known {
		return out, nil
	}
	var perCPU []abi.BanHit
	if err := b.maps[table.BanHits].Lookup(v.Slot, &perCPU); err != nil {
		return out, fmt.Errorf("counter of the ban of %s: %w", p, err)
	}
	for _, c := range perCPU {
		out.Packets += c.Packets
		out.Last = max(out.Last, time.Duration(c.LastNs))
	}
	return out, nil
}

// Close closes the descriptors; pins and programs keep the maps.
func (b *Bans) Close() error { return table.CloseAll(b.maps) }

func (b *Bans) writeState() error {
	if err := b.maps[table.BanState].Put(uint32(0), b.state); err != nil {
		return fmt.Errorf("map of bans: %w", err)
	}
	return nil
}

// count is that of the map in which a prefix stands.
func (b *Bans) count(p netip.Prefix) *uint32 {
	switch {
	case p.IsSingleIP():
		return &b.state.Addresses
	case p.Addr().Is4():
		return &b.state.Prefixes4
	default:
		return &b.state.Prefixes6
	}
}

func (b *Bans) place(p netip.Prefix) (*ebpf.Map, any) {
	switch {
	case p.IsSingleIP():
		return b.maps[table.Bans], table.SelfKey(p.Addr())
	case p.Addr().Is4():
		return b.maps[table.Bans4], abi.Prefix4Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As4()}
	default:
		return b.maps[table.Bans6], abi.Prefix6Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()}
	}
}
