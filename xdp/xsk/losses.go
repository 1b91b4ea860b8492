package xsk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types -cflags "-mcpu=v3 -O2 -g -Wall -Wextra -Werror -I../include -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" losses ../bpf/losses.c

const (
	lossesPin     = "socket-losses"
	lossesVersion = 2
	formerVersion = 1
	tracepoint    = "xdp_redirect_err"
	tracePin      = tracepoint + "-v1"
)

// Losses are packets that were redirected to a socket and did not arrive, by cause.
type Losses struct {
	NoFrame    uint64 `json:"no_frame"`    // its fill ring was empty, or the frame was larger than a chunk
	RingFull   uint64 `json:"ring_full"`   // its receive ring was full
	WrongPlace uint64 `json:"wrong_place"` // it is bound to another interface or queue than it is registered for
	Other      uint64 `json:"other"`
}

// Watch counts losses from now on, in the kernel, whether a daemon is there or not. It is to be called after Open: it makes
// the counters of new doors. Where it fails nobody counts.
func Watch(dir *pin.Dir) error {
	spec, err := loadLosses()
	if err != nil {
		return err
	}
	counters, err := dir.StateMap(spec.Maps[lossesMapSocketLosses], lossesPin, lossesVersion)
	if err != nil {
		return err
	}
	defer counters.Close()
	if err := addCounters(dir, counters); err != nil {
		return err
	}
	if err := trace(dir, spec, counters); err != nil {
		// Counters that nobody writes would say that nothing is lost.
		return errors.Join(fmt.Errorf("tracepoint %s: %w", tracepoint, err), dir.RemoveStateMap(lossesPin, lossesVersion))
	}
	return nil
}

// lostName is that of this version's program.
func lostName() string { return pin.NameOf("lost", _LossesBytes) }

// trace attaches the program that counts, unless this version's is attached and writes these counters. A tracepoint's link cannot
// be given another program, so while versions change nobody counts for a moment; with both, each loss would be two.
func trace(dir *pin.Dir, spec *ebpf.CollectionSpec, counters *ebpf.Map) error {
	attached, err := link.LoadPinnedLink(dir.TracePath(tracePin), nil)
	if err == nil {
		counts, err := writes(attached, counters)
		if err = errors.Join(err, attached.Close()); err != nil || counts {
			return err
		}
		// It is of another version, its counters are of another layout, or they went without it.
		if err := errors.Join(os.Remove(dir.TracePath(tracePin)), dir.RemoveStateMap(lossesPin, formerVersion)); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	spec.Programs[lossesProgLost].Name = lostName()
	programs, err := ebpf.NewCollectionWithOptions(spec,
		ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{lossesMapSocketLosses: counters}})
	if err != nil {
		return err
	}
	defer programs.Close()
	attached, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: programs.Programs[lossesProgLost]})
	if err != nil {
		return err
	}
	defer attached.Close()
	return attached.Pin(dir.TracePath(tracePin))
}

// writes says whether a link holds this version's program, and that these counters.
func writes(l link.Link, counters *ebpf.Map) (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, err
	}
	program, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return false, err
	}
	defer program.Close()
	about, err := program.Info()
	if err != nil {
		return false, err
	}
	id, err := mapID(counters)
	if err != nil {
		return false, err
	}
	used, _ := about.MapIDs()
	return about.Name == lostName() && slices.Contains(used, id), nil
}

func addCounters(dir *pin.Dir, counters *ebpf.Map) error {
	there, err := doorIDs(dir)
	if err != nil {
		return err
	}
	zero := make([]abi.SocketLosses, ebpf.MustPossibleCPU())
	for _, id := range there {
		if err := counters.Update(uint32(id), zero, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("counters of sockets: %w", err)
		}
	}
	return nil
}

// forget takes away the counters of doors that have gone, and with the last door who counts.
func forget(dir *pin.Dir) error {
	there, err := doorIDs(dir)
	if err != nil {
		return err
	}
	if len(there) == 0 {
		// The link first: while there are counters, somebody counts.
		if err := os.Remove(dir.TracePath(tracePin)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("tracepoint %s: %w", tracepoint, err)
		}
		return dir.RemoveStateMap(lossesPin, lossesVersion)
	}
	counters, err := openCounters(dir)
	if err != nil || counters == nil {
		return err
	}
	defer counters.Close()
	known := slices.Collect(maps.Values(there))
	var gone []uint32
	var id uint32
	var perCPU []abi.SocketLosses
	entries := counters.Iterate()
	for entries.Next(&id, &perCPU) {
		if !slices.Contains(known, ebpf.MapID(id)) {
			gone = append(gone, id)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("counters of sockets: %w", err)
	}
	for _, id := range gone {
		if err := counters.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("counters of sockets: %w", err)
		}
	}
	return nil
}

// openCounters returns nil where nobody counts.
func openCounters(dir *pin.Dir) (*ebpf.Map, error) {
	counters, err := ebpf.LoadPinnedMap(dir.StateMapPath(lossesPin, lossesVersion), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("counters of sockets: %w", err)
	}
	return counters, nil
}

// Lost reads the losses of every door. It returns nil where nobody counts.
func Lost(dir *pin.Dir) (map[pin.Socket]Losses, error) {
	counters, err := openCounters(dir)
	if err != nil || counters == nil {
		return nil, err
	}
	defer counters.Close()
	there, err := doorIDs(dir)
	if err != nil {
		return nil, err
	}
	out := map[pin.Socket]Losses{}
	for pair, id := range there {
		var perCPU []abi.SocketLosses
		if err := counters.Lookup(uint32(id), &perCPU); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("counters of sockets: %w", err)
		}
		var sum Losses
		for _, c := range perCPU {
			sum.NoFrame += c.NoFrame
			sum.RingFull += c.RingFull
			sum.WrongPlace += c.WrongPlace
			sum.Other += c.Other
		}
		out[pair] = sum
	}
	return out, nil
}

// doorIDs are the ids of the XSKMAPs of all doors.
func doorIDs(dir *pin.Dir) (map[pin.Socket]ebpf.MapID, error) {
	pairs, err := dir.Sockets()
	if err != nil {
		return nil, err
	}
	ids := map[pin.Socket]ebpf.MapID{}
	for _, pair := range pairs {
		if ids[pair], err = doorID(dir, pair); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func doorID(dir *pin.Dir, pair pin.Socket) (ebpf.MapID, error) {
	door, err := ebpf.LoadPinnedMap(dir.SocketPath(pair), nil)
	if err != nil {
		return 0, fmt.Errorf("socket %s on %s: %w", pair.Name, pair.Interface, err)
	}
	defer door.Close()
	return mapID(door)
}
