package xdp

import (
	"context"

	"sluice/xdp/pin"
	"sluice/xdp/xsk"
)

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

// Registered says for which receive queues a program has registered its socket in a door of Sockets.
func (s *Subsystem) Registered(ctx context.Context, socket SocketStatus) ([]uint32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return xsk.Registered(pin.At(s.dir), pin.Socket{Name: socket.Name, Interface: socket.Interface})
}
