package table

import (
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
	// minHits is the size of the rule counters where few ids are in use: 24 KB per possible CPU.
	minHits = 1024
	// formerHits is the layout version before the last hit came in: struct counter, always abi.RuleIDs entries.
	formerHits = 2
	// hitsBatch bounds what one system call copies: 100 KB per possible CPU.
	hitsBatch = 4096
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
	spec.MaxEntries = max(minHits, uint32(1)<<bits.Len32(max(ids, 1)-1))
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
			return copyHits(have, fresh, func(h abi.RuleHit) abi.RuleHit { return h })
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
	err = replaceHits(dir, spec, func(fresh *ebpf.Map) error {
		return copyHits(former, fresh, func(c abi.Counter) abi.RuleHit { return abi.RuleHit{Packets: c.Packets, Bytes: c.Bytes} })
	})
	if err != nil {
		return err
	}
	return dir.RemoveStateMap(at.pin, formerHits)
}

func replaceHits(dir *pin.Dir, spec *ebpf.MapSpec, fill func(*ebpf.Map) error) error {
	at := sharedPins[RuleHits]
	m, err := dir.ReplaceStateMap(spec, at.pin, at.version, fill)
	if err != nil {
		return err
	}
	return m.Close()
}

// copyHits copies what both maps have room for, CPU by CPU.
func copyHits[T any](from, to *ebpf.Map, convert func(T) abi.RuleHit) error {
	return eachBatch(from, func(ids []uint32, perCPU []T) error {
		cpus := len(perCPU) / len(ids)
		for len(ids) > 0 && ids[len(ids)-1] >= to.MaxEntries() { // in ascending order, as of any array
			ids = ids[:len(ids)-1]
		}
		if len(ids) == 0 {
			return nil
		}
		converted := make([]abi.RuleHit, len(ids)*cpus)
		for i := range converted {
			converted[i] = convert(perCPU[i])
		}
		if _, err := to.BatchUpdate(ids, converted, nil); err != nil {
			return fmt.Errorf("copy the counters of rules: %w", err)
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
	hits := map[uint32]Hit{}
	last := map[uint32]uint64{}
	err = eachBatch(m, func(ids []uint32, perCPU []abi.RuleHit) error {
		cpus := len(perCPU) / len(ids)
		for i, id := range ids {
			var sum abi.RuleHit
			for _, c := range perCPU[i*cpus : (i+1)*cpus] {
				sum = abi.RuleHit{Packets: sum.Packets + c.Packets, Bytes: sum.Bytes + c.Bytes, Last: max(sum.Last, c.Last)}
			}
			if id == 0 || sum.Packets == 0 {
				continue // id 0 is nobody's
			}
			hits[id] = Hit{Count: Count{sum.Packets, sum.Bytes}}
			if sum.Last != 0 {
				last[id] = sum.Last
			}
		}
		return nil
	})
	if err != nil || len(last) == 0 {
		return hits, err
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
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	zero := make([]abi.RuleHit, min(len(ids), hitsBatch)*cpus)
	for len(ids) > 0 {
		n := min(len(ids), hitsBatch)
		some := make([]uint32, 0, n)
		for _, id := range ids[:n] {
			if id < m.MaxEntries() {
				some = append(some, id)
			}
		}
		ids = ids[n:]
		if len(some) == 0 {
			continue
		}
		if _, err := m.BatchUpdate(some, zero[:len(some)*cpus], nil); err != nil {
			return fmt.Errorf("clear the counters of rules: %w", err)
		}
	}
	return nil
}
