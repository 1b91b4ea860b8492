package xdp

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/cilium/ebpf"

	"sluice/xdp/pin"
	"sluice/xdp/table"
	"sluice/xdp/xsk"
)

// Pins of state that the ingress program alone has.
const (
	socketsPin = "xdp-sockets"
	macsPin    = "xdp-macs"
)

// programMaps is that state. It is no part of a generation: what a program registered for, and what was learned of a
// listener, outlives it.
type programMaps struct {
	sockets, macs *ebpf.Map
	listeners     listeners
}

// openProgramMaps opens them as spec has them, making what is missing.
func openProgramMaps(dir *pin.Dir, spec *ebpf.CollectionSpec) (*programMaps, error) {
	var err error
	m := &programMaps{}
	if m.sockets, err = dir.StateMap(spec.Maps[ingressMapSockets], socketsPin, socketsVersion); err != nil {
		return nil, err
	}
	if m.macs, err = dir.StateMap(spec.Maps[ingressMapUplinkMacs], macsPin, macsVersion); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	shared, err := table.OpenState(dir, spec, table.SYNListeners)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	m.listeners = listeners{shared[table.SYNListeners]}
	return m, nil
}

// Close closes the descriptors; the pins stay.
func (m *programMaps) Close() error {
	var errs []error
	for _, one := range []*ebpf.Map{m.sockets, m.macs, m.listeners.Map} {
		if one != nil {
			errs = append(errs, one.Close())
		}
	}
	return errors.Join(errs...)
}

// prepare brings them to what a generation asks for, before it is live. Losses of sockets are not counted where the kernel
// has no tracepoints for it, which is no reason to filter nothing.
func (m *programMaps) prepare(dir *pin.Dir, want State, log *slog.Logger) error {
	if err := m.writeMACs(want.Interfaces); err != nil {
		return err
	}
	if sockets := want.Generation.Sockets; len(sockets) > 0 {
		if err := xsk.Open(dir, m.sockets, sockets); err != nil {
			return err
		}
		if err := xsk.Watch(dir); err != nil {
			log.Warn("packets that do not fit into a bypass socket are not counted", "err", err)
		}
	}
	// The table has no room for those of two generations: what goes is passed to the kernel by either.
	if err := m.listeners.retain(want.Generation.SYNListeners); err != nil {
		return err
	}
	return m.listeners.add(want.Generation.SYNListeners, want.Generation.Refuses)
}

// writeMACs tells the program the addresses of its interfaces, and forgets those of others. One whose address changes later
// has its SYNs passed to the kernel until the next generation is loaded.
func (m *programMaps) writeMACs(interfaces []Interface) error {
	want := map[uint32][8]byte{}
	for _, i := range interfaces {
		device, err := net.InterfaceByName(i.Name)
		if err != nil || len(device.HardwareAddr) != 6 {
			continue // the attachment says what is wrong with it; one without a MAC address answers nobody
		}
		var mac [8]byte
		copy(mac[:], device.HardwareAddr)
		want[uint32(device.Index)] = mac
	}
	var (
		index uint32
		have  [8]byte
		gone  []uint32
	)
	entries := m.macs.Iterate()
	for entries.Next(&index, &have) {
		if _, stays := want[index]; !stays {
			gone = append(gone, index)
		}
	}
	errs := []error{entries.Err()}
	for _, index := range gone {
		if err := m.macs.Delete(index); !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	for index, mac := range want {
		errs = append(errs, m.macs.Put(index, mac))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("map of MAC addresses: %w", err)
	}
	return nil
}
