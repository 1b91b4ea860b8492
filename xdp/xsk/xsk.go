// Package xsk keeps the doors of bypass sockets: for each pair of (socket, interface) one pinned XSKMAP, in which an
// external AF_XDP program registers its socket for a receive queue. They outlive generations and the daemon, so that the
// program need not notice either.
package xsk

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// Socket is one entry of sockets:.
type Socket struct {
	Name       string
	Interfaces []string
}

// ID is what a rule's argument and struct socket_key call a socket: it must not depend on the other sockets of the file,
// because the doors outlive a generation. Two names of one file with the same ID are refused when it is compiled.
func ID(name string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash takes everything
	return h.Sum32()
}

// Pairs are the doors that sockets ask for.
func Pairs(sockets []Socket) []pin.Socket {
	var out []pin.Socket
	for _, s := range sockets {
		for _, i := range s.Interfaces {
			out = append(out, pin.Socket{Name: s.Name, Interface: i})
		}
	}
	return out
}

// Open makes the doors that are missing and puts all of them into the map of sockets, before a program is live that asks
// for them. A program that registered already stays registered. An interface that is not there has no packets either.
func Open(dir *pin.Dir, doors *ebpf.Map, sockets []Socket) error {
	for _, pair := range Pairs(sockets) {
		device, err := net.InterfaceByName(pair.Interface)
		if err != nil {
			continue
		}
		if err := open(dir, doors, pair, abi.SocketKey{Socket: ID(pair.Name), Ifindex: uint32(device.Index)}); err != nil {
			return fmt.Errorf("socket %s on %s: %w", pair.Name, pair.Interface, err)
		}
	}
	return nil
}

func open(dir *pin.Dir, doors *ebpf.Map, pair pin.Socket, key abi.SocketKey) error {
	door, err := ebpf.LoadPinnedMap(dir.SocketPath(pair), nil)
	if errors.Is(err, fs.ErrNotExist) {
		door, err = create(dir.SocketPath(pair))
	}
	if err != nil {
		return err
	}
	defer door.Close()
	id, err := mapID(door)
	if err != nil {
		return err
	}
	var there uint32 // looking up a map of maps tells the id of the inner one
	err = doors.Lookup(key, &there)
	if err == nil && ebpf.MapID(there) == id {
		return nil
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	if err := clear(door); err != nil {
		return err
	}
	return doors.Put(key, door)
}

// clear empties a door that comes to an interface: one that was made anew. What is registered in it is bound to the former
// interface, and would swallow packets that the kernel could have.
func clear(door *ebpf.Map) error {
	for queue := range door.MaxEntries() {
		if err := door.Delete(queue); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

func create(path string) (*ebpf.Map, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	door, err := ebpf.NewMap(&ebpf.MapSpec{Name: "queues", Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: abi.SocketQueues})
	if err != nil {
		return nil, err
	}
	if err := door.Pin(path); err != nil {
		return nil, errors.Join(err, door.Close())
	}
	return door, nil
}

// Sweep takes away the doors that sockets do not ask for, once no live program does. A program that had registered keeps
// its socket, and gets no more packets. With the last door nobody watches for losses any longer. doors may be nil: where
// there is no data path there is no map of them.
func Sweep(dir *pin.Dir, doors *ebpf.Map, sockets []Socket) error {
	want := map[abi.SocketKey]bool{}
	pairs := Pairs(sockets)
	for _, pair := range pairs {
		if device, err := net.InterfaceByName(pair.Interface); err == nil {
			want[abi.SocketKey{Socket: ID(pair.Name), Ifindex: uint32(device.Index)}] = true
		}
	}
	if doors != nil {
		keys, err := keysOf(doors)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if want[key] {
				continue
			}
			if err := doors.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("map of sockets: %w", err)
			}
		}
	}
	pinned, err := dir.Sockets()
	if err != nil {
		return err
	}
	for _, pair := range pinned {
		if slices.Contains(pairs, pair) {
			continue
		}
		if err := dir.RemoveSocket(pair); err != nil {
			return fmt.Errorf("socket %s on %s: %w", pair.Name, pair.Interface, err)
		}
	}
	return forget(dir)
}

func keysOf(doors *ebpf.Map) ([]abi.SocketKey, error) {
	var (
		out []abi.SocketKey
		key abi.SocketKey
		id  uint32
	)
	entries := doors.Iterate()
	for entries.Next(&key, &id) {
		out = append(out, key)
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("map of sockets: %w", err)
	}
	return out, nil
}

func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("the kernel tells no map id")
	}
	return id, nil
}
