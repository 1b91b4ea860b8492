package xdp

import (
	"context"
	"fmt"

	"github.com/cilium/ebpf"

	"sluice/xdp/pin"
	"sluice/xdp/xsk"
)

const socketsPin = "xdp-sockets"

// openSockets makes the doors of bypass sockets before a program is live that asks for them. Losses are not counted where
// the kernel has no tracepoints for it, which is no reason to filter nothing.
func (s *Subsystem) openSockets(dir *pin.Dir, sockets []xsk.Socket) (*ebpf.Map, error) {
	doors, err := ebpf.LoadPinnedMap(dir.StateMapPath(socketsPin, socketsVersion), nil)
	if err != nil {
		return nil, fmt.Errorf("map of sockets: %w", err)
	}
	if len(sockets) == 0 {
		return doors, nil
	}
	if err := xsk.Open(dir, doors, sockets); err != nil {
		doors.Close()
		return nil, err
	}
	if err := xsk.Watch(dir); err != nil {
		s.log.Warn("packets that do not fit into a bypass socket are not counted", "err", err)
	}
	return doors, nil
}

// SocketStatus is one door: where a program registers, and what did not get through.
type SocketStatus struct {
	Name      string
	Interface string
	Path      string // of the XSKMAP, keyed by receive queue
	Counted   bool   // whether losses are
	Lost      xsk.Losses
}

// Sockets reports every bypass socket, sorted by name and interface.
func (s *Subsystem) Sockets(ctx context.Context) ([]SocketStatus, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := pin.At(s.dir)
	pairs, err := dir.Sockets()
	if err != nil {
		return nil, err
	}
	lost, err := xsk.Lost(dir)
	if err != nil {
		return nil, err
	}
	var out []SocketStatus
	for _, p := range pairs {
		losses, counted := lost[p]
		out = append(out, SocketStatus{Name: p.Name, Interface: p.Interface, Path: dir.SocketPath(p), Counted: counted, Lost: losses})
	}
	return out, nil
}
