package ipsec

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sluice/process"
)

// ErrNoProcess says that a tunnel has no process of its own.
var ErrNoProcess = errors.New("no process of its own")

// Holder is a process that holds a UDP port. It goes on as the program that it was started from until RestartHolder, or until
// no tunnel needs the port.
type Holder struct {
	Local   netip.AddrPort
	Tunnels []string // whose ESP comes there, sorted
	PID     int
	Program string // version of the binary; "": it is from before holders told
}

// Holders are those of standing tunnels, by address and port.
func (d *Driver) Holders() ([]Holder, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ports := map[string]*Holder{}
	for _, t := range d.tunnels {
		if t.want.Name == "" || !t.want.udp() {
			continue
		}
		lock := d.lockOf(t.want.Local)
		if ports[lock] == nil {
			ports[lock] = &Holder{Local: netip.AddrPortFrom(t.want.Local.Addr(), port(t.want.Local))}
		}
		ports[lock].Tunnels = append(ports[lock].Tunnels, t.want.Name)
	}
	var out []Holder
	for lock, h := range ports {
		var err error
		if h.PID, err = process.LockedBy(lock); err != nil {
			return nil, err
		}
		if h.PID == 0 {
			continue
		}
		if h.Program, err = process.LockProgram(lock); err != nil {
			return nil, err
		}
		slices.Sort(h.Tunnels)
		out = append(out, *h)
	}
	slices.SortFunc(out, func(a, b Holder) int {
		return cmp.Or(a.Local.Addr().Compare(b.Local.Addr()), cmp.Compare(a.Local.Port(), b.Local.Port()))
	})
	return out, nil
}

// RestartHolder has the binary that runs hold the port of a tunnel. What arrives in the milliseconds between is lost.
func (d *Driver) RestartHolder(tunnel string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tunnels[tunnel]
	if t == nil || t.want.Name == "" || !t.want.udp() {
		return fmt.Errorf("tunnel %s has %w: the kernel carries it", tunnel, ErrNoProcess)
	}
	lock := d.lockOf(t.want.Local)
	if err := process.EndLocked(lock); err != nil {
		return err
	}
	return d.startHolder(lock, t.want.Local)
}
