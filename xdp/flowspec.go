package xdp

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// ErrFlowSpecFull says that the filters do not fit. What was live stays.
var ErrFlowSpecFull = fmt.Errorf("%d entries of FlowSpec filters are in place and no more fit", abi.MaxFlowspec)

// FlowSpecFilter is one filter of a BGP neighbor.
type FlowSpecFilter struct {
	Key string // whose it is and what it matches: counters and buckets stay with it
	// Rules are the alternatives that it matches by; their actions and ids mean nothing here. Protocols are those of all of them;
	// nil: any.
	Rules     []classify.Rule
	Protocols []uint8
	Drop      bool
	Blackhole bool // drops too, and is told as such
	// Packets and Bytes are rates, of a limiter's Rate and Burst; nil: none.
	Packets, Bytes *classify.Limiter
	DSCP           *uint8 // to be written
	GoesOn         bool   // what stands behind it is asked, too, unless it drops
	Sample         bool   // WatchLogs is shown what it matches
	Socket         string // what passes goes there, where XDP judges and a program has registered; "": nowhere
	Until          time.Duration
}

// Entries are how many it takes of abi.MaxFlowspec.
func (f *FlowSpecFilter) Entries() (n int) {
	for i := range f.Rules {
		n += len(classify.Entries(&f.Rules[i]))
	}
	return n
}

// FlowSpecHits is what a filter matched.
type FlowSpecHits struct {
	Packets, Bytes uint64
	Dropped        uint64        // of the packets
	Last           time.Duration // since the machine booted; 0: never
}

// FlowSpec is the overlay of filters that the programs of both hooks look into. It is state: a generation neither brings nor
// takes it, and it outlives the daemon. It is not safe for concurrent use.
type FlowSpec struct {
	path  string // of the pins
	maps  map[string]*ebpf.Map
	live  uint64
	slots map[uint64]uint32 // of the filters that are live, by the hash of their keys
	keys  map[string]uint32
	zero  []abi.FlowspecHit
}

// OpenFlowSpec opens the overlay in a directory of pins, and makes what is missing. Filters that an earlier process left go on
// holding until Set, and keep their counters where Set brings them again.
func OpenFlowSpec(path string) (*FlowSpec, error) {
	dir, err := pin.Open(path)
	if err != nil {
		return nil, err
	}
	spec, err := loadIngress()
	if err != nil {
		return nil, err
	}
	f := &FlowSpec{path: path, slots: map[uint64]uint32{}, keys: map[string]uint32{}, zero: make([]abi.FlowspecHit, ebpf.MustPossibleCPU())}
	if f.maps, err = table.OpenState(dir, spec, table.FlowSpecLive, table.FlowSpecEntries, table.FlowSpecProtocols, table.FlowSpecDst4,
		table.FlowSpecSrc4, table.FlowSpecDst6, table.FlowSpecSrc6, table.FlowSpecBuckets, table.FlowSpecHits); err != nil {
		return nil, err
	}
	if err := f.adopt(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Repin is table.Repin.
func (f *FlowSpec) Repin() error { return table.Repin(f.path, f.maps) }

// adopt reads which filters are live. What a process that died was writing is in the other half.
func (f *FlowSpec) adopt() error {
	if err := f.maps[table.FlowSpecLive].Lookup(uint32(0), &f.live); err != nil {
		return fmt.Errorf("overlay of FlowSpec: %w", err)
	}
	var e abi.FlowspecEntry
	for n := range uint32(f.live>>8) * 64 {
		if err := f.maps[table.FlowSpecEntries].Lookup(f.half()*abi.MaxFlowspec+n, &e); err != nil {
			return fmt.Errorf("overlay of FlowSpec: %w", err)
		}
		if e.Key != 0 {
			f.slots[e.Key] = e.Rule.ID
		}
	}
	return f.clear(1 - f.half())
}

func (f *FlowSpec) half() uint32 { return uint32(f.live & abi.FlowspecHalf) }

// Set makes these filters live, in their order, in place of all that were: a packet meets the ones or the others. The others are gone
// when it returns. ErrFlowSpecFull.
func (f *FlowSpec) Set(filters []FlowSpecFilter) error {
	next, err := f.lay(filters)
	if err != nil {
		return err
	}
	if err := f.write(next); err != nil {
		return errors.Join(fmt.Errorf("overlay of FlowSpec: %w", err), f.clear(next.half))
	}
	if err := f.maps[table.FlowSpecLive].Put(uint32(0), next.live()); err != nil {
		return errors.Join(fmt.Errorf("overlay of FlowSpec: %w", err), f.clear(next.half))
	}
	former := f.half()
	f.live, f.slots, f.keys = next.live(), next.slots, next.keys
	if err := table.Quiesce(); err != nil { // packets on their way still look into it
		return err
	}
	return f.clear(former)
}

// Hits reads the counters of a filter that is live. One that is not counts nothing.
func (f *FlowSpec) Hits(key string) (FlowSpecHits, error) {
	var (
		out    FlowSpecHits
		perCPU []abi.FlowspecHit
	)
	slot, ok := f.keys[key]
	if !ok {
		return out, nil
	}
	if err := f.maps[table.FlowSpecHits].Lookup(slot, &perCPU); err != nil {
		return out, fmt.Errorf("counter of a FlowSpec filter: %w", err)
	}
	for _, c := range perCPU {
		out.Packets += c.Packets
		out.Bytes += c.Bytes
		out.Dropped += c.Dropped
		out.Last = max(out.Last, time.Duration(c.LastNs))
	}
	return out, nil
}

// Key is the filter of a slot, as `explain` and samples name it; "": none that is live and known here.
func (f *FlowSpec) Key(slot uint32) string {
	for key, s := range f.keys {
		if s == slot {
			return key
		}
	}
	return ""
}

// Close closes the descriptors; pins and programs keep the maps.
func (f *FlowSpec) Close() error { return table.CloseAll(f.maps) }

// clear removes the prefixes of a half. Its entries and sets by protocol stay, and mean nothing.
func (f *FlowSpec) clear(half uint32) error {
	return errors.Join(
		clearHalf(f.maps[table.FlowSpecDst4], func(k abi.FlowspecKey4) bool { return k.Half == half }),
		clearHalf(f.maps[table.FlowSpecSrc4], func(k abi.FlowspecKey4) bool { return k.Half == half }),
		clearHalf(f.maps[table.FlowSpecDst6], func(k abi.FlowspecKey6) bool { return k.Half == half }),
		clearHalf(f.maps[table.FlowSpecSrc6], func(k abi.FlowspecKey6) bool { return k.Half == half }))
}

func clearHalf[K any](m *ebpf.Map, of func(K) bool) error {
	var (
		key  K
		set  abi.FlowspecSet
		keys []K
	)
	entries := m.Iterate()
	for entries.Next(&key, &set) {
		if of(key) {
			keys = append(keys, key)
		}
	}
	errs := []error{entries.Err()}
	for _, k := range keys {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("overlay of FlowSpec: %w", err)
	}
	return nil
}

func keyHash(key string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // a hash takes everything
	return h.Sum64() | 1
}

func prefixKey4(half uint32, p netip.Prefix) abi.FlowspecKey4 {
	return abi.FlowspecKey4{Prefixlen: 32 + uint32(p.Bits()), Half: half, Addr: p.Addr().As4()}
}

func prefixKey6(half uint32, p netip.Prefix) abi.FlowspecKey6 {
	return abi.FlowspecKey6{Prefixlen: 32 + uint32(p.Bits()), Half: half, Addr: p.Addr().As16()}
}
