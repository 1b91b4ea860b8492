package tc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// What sources owe and how their flows share is state: a change of policy begins nobody's bandwidth anew.
const (
	pacersPin     = "pacers"
	pacersVersion = 1
)

func openPacers(dir *pin.Dir, spec *ebpf.CollectionSpec) (*ebpf.Map, error) {
	return dir.StateMap(spec.Maps[tcMapPacers], pacersPin, pacersVersion)
}

// preparePacers makes the state of the sources that have none yet, before a generation that looks for it is live.
func preparePacers(dir *pin.Dir, spec *ebpf.CollectionSpec, on *links, paced []Paced) error {
	m, err := openPacers(dir, spec)
	if err != nil {
		return err
	}
	defer m.Close()
	for _, p := range paced {
		ifindex, ok := on.index[p.Interface]
		if !ok {
			return fmt.Errorf("bandwidth of %s: it is not among the interfaces with tcx programs", p.Interface)
		}
		if err := m.Update(uint32(ifindex), abi.Pacer{}, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("state of the bandwidth of %s: %w", p.Interface, err)
		}
	}
	return nil
}

// sweepPacers forgets the sources that the generation which is live now does not pace.
func sweepPacers(dir *pin.Dir, spec *ebpf.CollectionSpec, on *links, paced []Paced) error {
	m, err := openPacers(dir, spec)
	if err != nil {
		return err
	}
	defer m.Close()
	wanted := map[uint32]bool{}
	for _, p := range paced {
		wanted[uint32(on.index[p.Interface])] = true
	}
	var (
		ifindex uint32
		state   abi.Pacer
		stale   []uint32
	)
	all := m.Iterate()
	for all.Next(&ifindex, &state) {
		if !wanted[ifindex] {
			stale = append(stale, ifindex)
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("state of bandwidths: %w", err)
	}
	for _, ifindex := range stale {
		if err := m.Delete(ifindex); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("state of bandwidths: %w", err)
		}
	}
	return nil
}

func fillRates(m *ebpf.Map, on *links, paced []Paced) error {
	for _, p := range paced {
		if err := m.Put(uint32(on.index[p.Interface]), p.Rate); err != nil {
			return fmt.Errorf("bandwidth of %s: %w", p.Interface, err)
		}
	}
	return nil
}

// Pacing is what bandwidth.egress does to one source now.
type Pacing struct {
	Interface string
	Rate      uint64        // bits per second
	Backlog   time.Duration // until the rate has room for another packet
	Flows     int           // that share it, give or take those that ended just now
	Dropped   uint64        // packets, since it was first paced
	Marked    uint64        // packets that got ECN's mark of congestion, likewise
}

// Pacing tells of every interface that the live generation paces, sorted by name.
func (s *Subsystem) Pacing(ctx context.Context) ([]Pacing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	interfaces, err := s.observe(ctx)
	if err != nil {
		return nil, err
	}
	dir := pin.At(s.dir)
	state, err := ebpf.LoadPinnedMap(dir.StateMapPath(pacersPin, pacersVersion), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state of bandwidths: %w", err)
	}
	defer state.Close()
	live, err := openGenerations(dir)
	if err != nil {
		return nil, err
	}
	defer live.Close()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, fmt.Errorf("clock: %w", err)
	}
	var out []Pacing
	for _, o := range interfaces {
		p, err := pacingOf(o, live, state, now.Nano())
		if err != nil {
			return nil, err
		}
		if p.Rate > 0 {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Pacing) int { return strings.Compare(a.Interface, b.Interface) })
	return out, nil
}

// pacingOf is without a rate for an interface that is not paced.
func pacingOf(o observed, all generations, state *ebpf.Map, now int64) (Pacing, error) {
	p := Pacing{Interface: o.name}
	for _, of := range all {
		rates := of.generation.Maps[tcMapRates]
		if o.digest == "" || of.generation.digest != o.digest || rates == nil {
			continue
		}
		if err := rates.Lookup(uint32(o.ifindex), &p.Rate); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return p, fmt.Errorf("bandwidth of %s: %w", o.name, err)
		}
		break
	}
	var value abi.Pacer
	err := state.Lookup(uint32(o.ifindex), &value)
	if p.Rate == 0 || errors.Is(err, ebpf.ErrKeyNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("state of the bandwidth of %s: %w", o.name, err)
	}
	p.Backlog = time.Duration(max(int64(value.Next-uint64(now)<<abi.PaceTickBits), 0) >> abi.PaceTickBits) // ticks wrap
	p.Flows, p.Dropped, p.Marked = bits.OnesCount64(value.Active), value.Dropped, value.Marked
	return p, nil
}
