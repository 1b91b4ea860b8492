package xdp

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
	"sluice/xdp/xsk"
)

// Layout versions of the state maps. Change one with the struct that stands in it.
const (
	reasonsVersion    = 1
	interfacesVersion = 1
	failsafeVersion   = 1
	selfVersion       = 1
	slotsVersion      = 1
	socketsVersion    = 1
	macsVersion       = 1
)

const failOpenFlag = abi.InterfaceFailOpen

// stateMaps are the pinned maps that roots share with generations, or that outlive both.
type stateMaps struct {
	reasons, interfaces, slots, failsafe, self *ebpf.Map
}

// openState opens the state maps, making what is missing.
func (s *Subsystem) openState() (*stateMaps, error) {
	dir, err := pin.Open(s.dir)
	if err != nil {
		return nil, err
	}
	spec, err := s.root()
	if err != nil {
		return nil, err
	}
	spec.Maps[rootMapInterfaces].MaxEntries = abi.InterfaceSlots
	m := &stateMaps{}
	for _, one := range []struct {
		to      **ebpf.Map
		name    string
		pin     string
		version int
	}{
		{&m.reasons, rootMapReasons, "xdp-reasons", reasonsVersion},
		{&m.interfaces, rootMapInterfaces, "xdp-interfaces", interfacesVersion},
		{&m.slots, rootMapInterfaceSlots, "xdp-interface-slots", slotsVersion},
		{&m.failsafe, rootMapFailsafe, "xdp-failsafe", failsafeVersion},
		{&m.self, rootMapSelfRoot, "xdp-self", selfVersion},
	} {
		if *one.to, err = dir.StateMap(spec.Maps[one.name], one.pin, one.version); err != nil {
			m.Close()
			return nil, err
		}
	}
	return m, nil
}

func removeOwnState(dir *pin.Dir) error {
	return errors.Join(
		dir.RemoveStateMap("xdp-reasons", reasonsVersion),
		dir.RemoveStateMap("xdp-interfaces", interfacesVersion),
		dir.RemoveStateMap("xdp-interface-slots", slotsVersion),
		dir.RemoveStateMap("xdp-failsafe", failsafeVersion),
		dir.RemoveStateMap("xdp-self", selfVersion),
		dir.RemoveStateMap(socketsPin, socketsVersion),
		dir.RemoveStateMap(macsPin, macsVersion),
		xsk.Sweep(dir, nil, nil),
	)
}

// Close closes the descriptors; the pins stay.
func (m *stateMaps) Close() {
	for _, one := range []*ebpf.Map{m.reasons, m.interfaces, m.slots, m.failsafe, m.self} {
		if one != nil {
			one.Close()
		}
	}
}

// interfaceEntry is zero, slot 0 included, for an interface that is not in the map.
func (m *stateMaps) interfaceEntry(ifindex int) (abi.Interface, error) {
	var entry abi.Interface
	err := m.interfaces.Lookup(uint32(ifindex), &entry)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return entry, fmt.Errorf("map of interfaces: %w", err)
	}
	return entry, nil
}

// setInterface writes the entry of an interface, with the slot that it has or a free one whose counters are zero.
func (m *stateMaps) setInterface(ifindex int, failOpen bool) error {
	entry, err := m.interfaceEntry(ifindex)
	if err != nil {
		return err
	}
	if entry.Slot == 0 {
		if entry.Slot, err = m.freeSlot(); err != nil {
			return err
		}
		if err := table.ClearSlot(m.reasons, entry.Slot); err != nil {
			return err
		}
	}
	entry.Role = uint8(abi.RoleUplink)
	entry.Flags = 0
	if failOpen {
		entry.Flags = failOpenFlag
	}
	if err := m.interfaces.Put(uint32(ifindex), entry); err != nil {
		return fmt.Errorf("map of interfaces: %w", err)
	}
	if err := m.slots.Put(slotIndex(ifindex), abi.InterfaceSlot{Ifindex: uint32(ifindex), Slot: entry.Slot}); err != nil {
		return fmt.Errorf("array of interfaces: %w", err)
	}
	return nil
}

// slotIndex is where slot_of() looks an interface up before it asks the map of interfaces.
func slotIndex(ifindex int) uint32 { return uint32(ifindex) % abi.InterfaceSlots }

// removeInterface forgets an interface. Another one whose index has the same low bits keeps its place in the array.
func (m *stateMaps) removeInterface(ifindex int) error {
	var at abi.InterfaceSlot
	err := m.slots.Lookup(slotIndex(ifindex), &at)
	if err == nil && at.Ifindex == uint32(ifindex) {
		err = m.slots.Put(slotIndex(ifindex), abi.InterfaceSlot{})
	}
	if err != nil {
		return fmt.Errorf("array of interfaces: %w", err)
	}
	if err := m.interfaces.Delete(uint32(ifindex)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("map of interfaces: %w", err)
	}
	return nil
}

// freeSlot finds the lowest slot that no interface has. Entries of interfaces that have gone are removed on the way.
func (m *stateMaps) freeSlot() (uint32, error) {
	var (
		used    [abi.InterfaceSlots]bool
		gone    []uint32
		ifindex uint32
		entry   abi.Interface
	)
	used[0] = true // "interface unknown"
	entries := m.interfaces.Iterate()
	for entries.Next(&ifindex, &entry) {
		if _, err := net.InterfaceByIndex(int(ifindex)); err != nil {
			gone = append(gone, ifindex)
		} else if entry.Slot < abi.InterfaceSlots {
			used[entry.Slot] = true
		}
	}
	if err := entries.Err(); err != nil {
		return 0, fmt.Errorf("map of interfaces: %w", err)
	}
	for _, ifindex := range gone {
		if err := m.removeInterface(int(ifindex)); err != nil {
			return 0, err
		}
	}
	for slot, taken := range used {
		if !taken {
			return uint32(slot), nil
		}
	}
	return 0, fmt.Errorf("more than %d interfaces with XDP", abi.InterfaceSlots-1)
}
