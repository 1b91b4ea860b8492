package xsk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

//go:generate go tool bpf2go -cc clang-19 -target bpfel -no-global-types -cflags "-mcpu=v3 -O2 -g -Wall -Wextra -Werror -I../include -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" losses ../bpf/losses.c

const (
	lossesPin     = "socket-losses"
	lossesVersion = 1
	tracepoint    = "xdp_redirect_err"
	tracePin      = tracepoint + "-v1" // the version is that of losses.c: a pinned link keeps its program
)

// Losses are packets that were redirected to a socket and did not arrive, by cause.
type Losses struct {
	NoFrame    uint64 `json:"no_frame"`    // its fill ring was empty, or the frame was larger than a chunk
	RingFull   uint64 `json:"ring_full"`   // its receive ring was full
	WrongPlace uint64 `json:"wrong_place"` // it is bound to another interface or queue than it is registered for
	Other      uint64 `json:"other"`
}

// Watch counts losses from now on, in the kernel, whether a daemon is there or not. Once there are doors it is to be called
// after Open: it makes the counters of new ones, and forgets those of doors that have gone.
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
	trace, err := link.LoadPinnedLink(dir.TracePath(tracePin), nil)
	if err == nil {
		return trace.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tracepoint %s: %w", tracepoint, err)
	}
	programs, err := ebpf.NewCollectionWithOptions(spec,
		ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{lossesMapSocketLosses: counters}})
	if err != nil {
		return fmt.Errorf("tracepoint %s: %w", tracepoint, err)
	}
	defer programs.Close()
	trace, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: programs.Programs[lossesProgLost]})
	if err != nil {
		return fmt.Errorf("tracepoint %s: %w", tracepoint, err)
	}
	defer trace.Close()
	if err := trace.Pin(dir.TracePath(tracePin)); err != nil {
		return fmt.Errorf("pin tracepoint %s: %w", tracepoint, err)
	}
	return nil
}

// Unwatch ends it.
func Unwatch(dir *pin.Dir) error {
	if err := os.Remove(dir.TracePath(tracePin)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return dir.RemoveStateMap(lossesPin, lossesVersion)
}

func addCounters(dir *pin.Dir, counters *ebpf.Map) error {
	pairs, err := dir.Sockets()
	if err != nil {
		return err
	}
	there := map[uint32]bool{}
	for _, pair := range pairs {
		id, err := doorID(dir, pair)
		if err != nil {
			return err
		}
		there[uint32(id)] = true
		zero := make([]abi.SocketLosses, ebpf.MustPossibleCPU())
		if err := counters.Update(uint32(id), zero, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("counters of sockets: %w", err)
		}
	}
	var gone []uint32
	var id uint32
	var perCPU []abi.SocketLosses
	entries := counters.Iterate()
	for entries.Next(&id, &perCPU) {
		if !there[id] {
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

// Lost reads the losses of every door. It returns nil where nobody counts.
func Lost(dir *pin.Dir) (map[pin.Socket]Losses, error) {
	counters, err := ebpf.LoadPinnedMap(dir.StateMapPath(lossesPin, lossesVersion), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("counters of sockets: %w", err)
	}
	defer counters.Close()
	pairs, err := dir.Sockets()
	if err != nil {
		return nil, err
	}
	out := map[pin.Socket]Losses{}
	for _, pair := range pairs {
		id, err := doorID(dir, pair)
		if err != nil {
			return nil, err
		}
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

func doorID(dir *pin.Dir, pair pin.Socket) (ebpf.MapID, error) {
	door, err := ebpf.LoadPinnedMap(dir.SocketPath(pair), nil)
	if err != nil {
		return 0, fmt.Errorf("socket %s on %s: %w", pair.Name, pair.Interface, err)
	}
	defer door.Close()
	return mapID(door)
}
