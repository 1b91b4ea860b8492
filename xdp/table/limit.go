package table

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// Limiters is the table of limiters of a generation, as in limit.h. Its pin among those of the generation has this name
// as well.
const Limiters = "limiters"

// ResizeLimiters sets the size of the table of limiters.
func ResizeLimiters(spec *ebpf.CollectionSpec, limiters []classify.Limiter) error {
	m, ok := spec.Maps[Limiters]
	if !ok {
		return missing(Limiters)
	}
	m.MaxEntries = uint32(max(len(limiters), 1))
	return nil
}

// FillLimiters writes them.
func FillLimiters(m *ebpf.Map, limiters []classify.Limiter) error {
	for i, l := range limiters {
		if err := m.Put(uint32(i), l.Entry()); err != nil {
			return fmt.Errorf("map %s: %w", Limiters, err)
		}
	}
	return nil
}

// prepareLimits sets the sizes of the tables of limits in spec, for rules whose ids are below limited, and makes those that are
// pinned large enough: 12 MB where ids are many, next to nothing while no rule has a limit. They only grow: what a limit knows
// outlives generations that do without it. What programs write into a table that is too small while it is copied is lost.
func prepareLimits(dir *pin.Dir, spec *ebpf.CollectionSpec, limited uint32) error {
	sets := uint32(1)
	if limited > 0 {
		sets = abi.LimitSets // which is what sources are hashed into, whatever the size
	}
	for name, size := range map[string]uint32{LimitBuckets: max(limited, 1), LimitSources: sets} {
		one, ok := spec.Maps[name]
		if !ok {
			return missing(name)
		}
		one.MaxEntries = size
		have, err := ReadShared(dir, name)
		if err != nil {
			return err
		}
		if have == nil {
			continue
		}
		one.MaxEntries = max(size, have.MaxEntries())
		if have.MaxEntries() < size {
			err = growLimits(dir, name, one, have)
		}
		if err = errors.Join(err, have.Close()); err != nil {
			return err
		}
	}
	return nil
}

// growLimits gives the pin of a table to a larger one of the same content.
func growLimits(dir *pin.Dir, name string, spec *ebpf.MapSpec, have *ebpf.Map) error {
	at := sharedPins[name]
	m, err := dir.ReplaceStateMap(spec, at.pin, at.version, func(fresh *ebpf.Map) error {
		from, err := have.Memory()
		if err != nil {
			return err
		}
		to, err := fresh.Memory()
		if err != nil {
			return err
		}
		all := make([]byte, stride(int(have.ValueSize()))*int(have.MaxEntries()))
		if _, err := from.ReadAt(all, 0); err != nil {
			return err
		}
		_, err = to.WriteAt(all, 0)
		return err
	})
	if err != nil {
		return err
	}
	return m.Close()
}

// Pressure tells how full the table of limited sources was, since it was made.
type Pressure struct {
	Forgotten uint64 // debts of unproven sources that made room for others
	Shared    uint64 // packets whose source found no room: they shared the bucket of their rule
}

// ReadPressure reads it: zero where there is no table yet.
func ReadPressure(dir *pin.Dir) (Pressure, error) {
	var out Pressure
	m, err := ReadShared(dir, LimitPressure)
	if err != nil || m == nil {
		return out, err
	}
	defer m.Close()
	var perCPU []abi.LimitPressure
	if err := m.Lookup(uint32(0), &perCPU); err != nil {
		return out, fmt.Errorf("map %s: %w", LimitPressure, err)
	}
	for _, c := range perCPU {
		out.Forgotten += c.Forgotten
		out.Shared += c.Shared
	}
	return out, nil
}

// seedLimits gives a new table of sources its key. One that has a key keeps it, or every source would lose its bucket.
func seedLimits(m *ebpf.Map) error {
	var seed uint64
	if err := m.Lookup(uint32(0), &seed); err != nil {
		return fmt.Errorf("map %s: %w", LimitSeed, err)
	}
	for seed == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // cannot fail since Go 1.24
		seed = binary.NativeEndian.Uint64(b[:])
	}
	if err := m.Put(uint32(0), seed); err != nil {
		return fmt.Errorf("map %s: %w", LimitSeed, err)
	}
	return nil
}
