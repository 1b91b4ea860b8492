package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"time"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

const (
	// minHits are the ids that have counters where few are in use: 24 KB per possible CPU.
	minHits = 1024
	// formerHits is the layout version before the last hit came in: a per-CPU array of struct counter.
	formerHits = 2
	// hitsBatch bounds what one system call copies of it: 64 KB per possible CPU.
	hitsBatch = 4096
	hitSize   = 24 // struct rule_hit
	ruleIDs   = "rule_ids"
)

// Hit is what a rule, or a policy's default, has matched.
type Hit struct {
	Count
	Last time.Time // wall clock, to a tick of the kernel (1 to 10 ms); zero: never, or not since the layout knows it
}

// prepareHits sets the size of the rule counters in spec, and makes the pinned map large enough. It only grows, to a
// power of two: what a rule counted that a rollback may bring back stays. Counters of the former layout are taken over.
func prepareHits(dir *pin.Dir, spec *ebpf.MapSpec, ids uint32) error {
	at := sharedPins[RuleHits]
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	spec.MaxEntries = max(minHits, uint32(1)<<bits.Len32(max(ids, 1)-1)) * uint32(cpus)
	have, err := ReadShared(dir, RuleHits)
	if err != nil {
		return err
	}
	if have != nil {
		defer have.Close()
		if have.MaxEntries() >= spec.MaxEntries {
			spec.MaxEntries = have.MaxEntries()
			return nil
		}
		return replaceHits(dir, spec, func(fresh *ebpf.Map) error {
			return copyHits(have, fresh)
		})
	}
	former, err := ebpf.LoadPinnedMap(dir.StateMapPath(at.pin, formerHits), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state map %s-v%d: %w", at.pin, formerHits, err)
	}
	defer former.Close()
	err = replaceHits(dir, spec, func(fresh *ebpf.Map) error { return takeOver(former, fresh) })
	if err != nil {
		return err
	}
	return dir.RemoveStateMap(at.pin, formerHits)
}

// numberHits tells the programs of spec how many ids have counters.
func numberHits(spec *ebpf.CollectionSpec, hits *ebpf.Map) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	ids, ok := spec.Variables[ruleIDs]
	if !ok {
		return missing(ruleIDs)
	}
	return ids.Set(hits.MaxEntries() / uint32(cpus))
}

func replaceHits(dir *pin.Dir, spec *ebpf.MapSpec, fill func(*ebpf.Map) error) error {
	at := sharedPins[RuleHits]
	m, err := dir.ReplaceStateMap(spec, at.pin, at.version, fill)
	if err != nil {
		return err
	}
	return m.Close()
}

// hitTable is the memory of rule counters: CPU after CPU.
type hitTable struct {
	*ebpf.Memory
	ids, cpus uint32
}

func openHits(m *ebpf.Map) (hitTable, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return hitTable{}, err
	}
	memory, err := m.Memory()
	if err != nil {
		return hitTable{}, fmt.Errorf("counters of rules: %w", err)
	}
	return hitTable{memory, m.MaxEntries() / uint32(cpus), uint32(cpus)}, nil
}

func (t hitTable) at(cpu, id uint32) int64 { return hitSize * (int64(cpu)*int64(t.ids) + int64(id)) }

// copyHits copies what both maps have room for, CPU by CPU.
func copyHits(from, to *ebpf.Map) error {
	was, err := openHits(from)
	if err != nil {
		return err
	}
	is, err := openHits(to)
	if err != nil {
		return err
	}
	all := make([]byte, hitSize*min(was.ids, is.ids))
	for cpu := range is.cpus {
		if _, err := was.ReadAt(all, was.at(cpu, 0)); err != nil {
			return fmt.Errorf("copy the counters of rules: %w", err)
		}
		if _, err := is.WriteAt(all, is.at(cpu, 0)); err != nil {
			return fmt.Errorf("copy the counters of rules: %w", err)
		}
	}
	return nil
}

// takeOver copies the counters of the former layout.
func takeOver(former, to *ebpf.Map) error {
	is, err := openHits(to)
	if err != nil {
		return err
	}
	return eachBatch(former, func(ids []uint32, perCPU []abi.Counter) error {
		for i, c := range perCPU {
			id, cpu := ids[i/int(is.cpus)], uint32(i)%is.cpus
			if id >= is.ids || c.Packets == 0 {
				continue
			}
			hit := binary.NativeEndian.AppendUint64(nil, c.Packets)
			if _, err := is.WriteAt(binary.NativeEndian.AppendUint64(hit, c.Bytes), is.at(cpu, id)); err != nil {
				return fmt.Errorf("copy the counters of rules: %w", err)
			}
		}
		return nil
	})
}

// eachBatch reads a per-CPU array in pieces: at 100,000 ids and many CPUs it is too much for one.
func eachBatch[T any](m *ebpf.Map, f func(ids []uint32, perCPU []T) error) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	var cursor ebpf.MapBatchCursor
	ids := make([]uint32, min(hitsBatch, m.MaxEntries()))
	values := make([]T, len(ids)*cpus)
	for {
		n, err := m.BatchLookup(&cursor, ids, values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist) // which says that these were all
		if err != nil && !last {
			return fmt.Errorf("counters of rules: %w", err)
		}
		if n > 0 {
			if err := f(ids[:n], values[:n*cpus]); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// ReadHits reads the counters of all rules and defaults by stable id, summed over CPUs; those at zero are left out.
// Counters of rules that are gone are among them until their id is used again.
func ReadHits(dir *pin.Dir) (map[uint32]Hit, error) {
	m, err := ReadShared(dir, RuleHits)
	if err != nil || m == nil {
		return nil, err
	}
	defer m.Close()
	counters, err := openHits(m)
	if err != nil {
		return nil, err
	}
	sums := make([]abi.RuleHit, counters.ids)
	all := make([]byte, hitSize*counters.ids)
	for cpu := range counters.cpus {
		if _, err := counters.ReadAt(all, counters.at(cpu, 0)); err != nil {
			return nil, fmt.Errorf("counters of rules: %w", err)
		}
		for id := range sums {
			sum, one := &sums[id], all[hitSize*id:]
			sum.Packets += binary.NativeEndian.Uint64(one)
			sum.Bytes += binary.NativeEndian.Uint64(one[8:])
			sum.Last = max(sum.Last, binary.NativeEndian.Uint64(one[16:]))
		}
	}
	hits := map[uint32]Hit{}
	last := map[uint32]uint64{}
	for id, sum := range sums {
		if id == 0 || sum.Packets == 0 {
			continue // id 0 is nobody's
		}
		hits[uint32(id)] = Hit{Count: Count{sum.Packets, sum.Bytes}}
		if sum.Last != 0 {
			last[uint32(id)] = sum.Last
		}
	}
	if len(last) == 0 {
		return hits, nil
	}
	now, err := readTicks() // after the counters, so that none is of the future
	if err != nil {
		return nil, err
	}
	for id, at := range last {
		h := hits[id]
		h.Last = now.wall(at)
		hits[id] = h
	}
	return hits, nil
}

// ClearHits sets counters to zero. A packet that is being counted at this moment may write its CPU's old sum back.
func ClearHits(dir *pin.Dir, ids []uint32) error {
	m, err := ReadShared(dir, RuleHits)
	if err != nil || m == nil {
		return err
	}
	defer m.Close()
	counters, err := openHits(m)
	if err != nil {
		return err
	}
	for cpu := range counters.cpus {
		for _, id := range ids {
			if id >= counters.ids {
				continue
			}
			if _, err := counters.WriteAt(make([]byte, hitSize), counters.at(cpu, id)); err != nil {
				return fmt.Errorf("clear the counters of rules: %w", err)
			}
		}
	}
	return nil
}
