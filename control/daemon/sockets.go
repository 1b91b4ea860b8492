package daemon

import (
	"context"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/control/api"
)

func (d *Daemon) showSockets(ctx context.Context) ([]api.Socket, error) {
	sockets, err := d.xdp.Sockets(ctx)
	if err != nil {
		return nil, err
	}
	links, err := d.host.Status(ctx)
	if err != nil {
		return nil, err
	}
	inUse := map[string]int{}
	for _, l := range links {
		inUse[l.Name] = l.RxQueues
	}
	out := []api.Socket{}
	for _, s := range sockets {
		registered, err := d.xdp.Registered(ctx, s)
		if err != nil {
			return nil, err
		}
		out = append(out, api.Socket{Name: s.Name, Interface: s.Interface, Path: s.Path, Queues: socketQueues(registered, inUse[s.Interface]),
			Counted: s.Counted, Lost: api.SocketLost(s.Lost)})
	}
	return out, nil
}

// socketQueues joins those that are registered for, in order, with the first inUse ones; 0: how many is not known.
func socketQueues(registered []uint32, inUse int) []api.SocketQueue {
	out := []api.SocketQueue{}
	for queue := range uint32(inUse) {
		out = append(out, api.SocketQueue{Queue: queue, Registered: slices.Contains(registered, queue), InUse: new(true)})
	}
	for _, queue := range registered {
		switch {
		case inUse == 0:
			out = append(out, api.SocketQueue{Queue: queue, Registered: true})
		case queue >= uint32(inUse):
			out = append(out, api.SocketQueue{Queue: queue, Registered: true, InUse: new(false)})
		}
	}
	return out
}

var descSocketLost = desc("socket_lost_total", "Packets handed to a bypass socket that did not arrive.", "socket", "interface", "cause")

func (c collector) sockets(ctx context.Context, out chan<- prometheus.Metric) error {
	sockets, err := c.d.xdp.Sockets(ctx)
	for _, s := range sockets {
		if !s.Counted {
			continue
		}
		counter(out, descSocketLost, s.Lost.NoFrame, s.Name, s.Interface, "no-frame")
		counter(out, descSocketLost, s.Lost.RingFull, s.Name, s.Interface, "ring-full")
		counter(out, descSocketLost, s.Lost.WrongPlace, s.Name, s.Interface, "wrong-place")
		counter(out, descSocketLost, s.Lost.Other, s.Name, s.Interface, "other")
	}
	return err
}
