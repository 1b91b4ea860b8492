package daemon

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/control/api"
)

func (d *Daemon) showSockets(ctx context.Context) ([]api.Socket, error) {
	sockets, err := d.xdp.Sockets(ctx)
	out := []api.Socket{}
	for _, s := range sockets {
		out = append(out, api.Socket{Name: s.Name, Interface: s.Interface, Path: s.Path, Counted: s.Counted, Lost: api.SocketLost(s.Lost)})
	}
	return out, err
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
