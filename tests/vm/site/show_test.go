//go:build vmguest

package site

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/control/api"
)

func (e *end) tunnels() (api.Tunnels, error) {
	client := e.API()
	defer client.Close()
	return api.Show[api.Tunnels](e.t.Context(), client, "tunnels")
}

// tunnel is what `show tunnels` tells of one, and of its one peer.
func (e *end) tunnel(name string) (api.Tunnel, api.TunnelPeer) {
	e.t.Helper()
	all, err := e.tunnels()
	if err != nil {
		e.t.Fatal(err)
	}
	i := slices.IndexFunc(all.Tunnels, func(t api.Tunnel) bool { return t.Name == name })
	if i < 0 || len(all.Tunnels[i].Peers) != 1 {
		e.t.Fatalf("there is no tunnel %s of one peer: %+v", name, all.Tunnels)
	}
	return all.Tunnels[i], all.Tunnels[i].Peers[0]
}

// tunnelsAre waits for a state of tunnels, which probes must agree with.
func (e *end) tunnelsAre(want api.PeerState, names ...string) time.Duration {
	e.t.Helper()
	return eventually(e.t, func() error {
		for _, name := range names {
			all, err := e.tunnels()
			if err != nil {
				return err
			}
			i := slices.IndexFunc(all.Tunnels, func(t api.Tunnel) bool { return t.Name == name })
			if i < 0 || len(all.Tunnels[i].Peers) != 1 {
				return fmt.Errorf("no tunnel %s", name)
			}
			p := all.Tunnels[i].Peers[0]
			if p.State != want || p.Probe != nil && (p.Probe.Sent == 0 || p.Probe.Down != (want == api.PeerDown)) {
				return fmt.Errorf("tunnel %s: peer %+v, probe %+v, want %s", name, p, p.Probe, want)
			}
		}
		return nil
	})
}

// routeIs waits until the gateway reaches the inner host by a device.
func (s *site) routeIs(want string) time.Duration {
	s.t.Helper()
	return eventually(s.t, func() error {
		out, err := run(s.t, s.Gateway.Namespace, "ip", "route", "get", inner)
		if err == nil && !strings.Contains(out, " dev "+want+" ") {
			err = errors.New(out)
		}
		return err
	})
}

// cut keeps what a rule takes from crossing the ToR, until mend lets it pass again.
func (s *site) cut(rule string) (mend func()) {
	s.t.Helper()
	s.must(s.ToR, "ip rule add pref 100 "+rule+" blackhole")
	return sync.OnceFunc(func() { s.must(s.ToR, "ip rule del pref 100 "+rule+" blackhole") })
}

// Rules of the two tunnels.
const (
	udp = "ipproto 17 dport 51820"
	esp = "ipproto 50"
)
