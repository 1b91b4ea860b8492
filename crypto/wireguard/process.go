package wireguard

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/crypto/wireguard/child"
	"sluice/process"
)

// Event says that a userspace tunnel has lost its process, which only a repair brings back. Until then the TUN and the
// blackholes behind it keep plaintext in.
type Event struct {
	Tunnel string
	Why    string // "" where the process said nothing
}

// Events tells of tunnels that need a repair. One that nobody takes is dropped while others wait: a repair is of all.
func (d *Driver) Events() <-chan Event { return d.events }

// Pauses before the event of a process that did not live long: one that dies at once is not started without end.
const (
	longLife   = 10 * time.Second
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
)

// tunneld is the process of one tunnel, and how often in a row it died young.
type tunneld struct {
	*child.Client
	since  time.Time
	deaths int
}

// child returns the process of a tunnel, adopting the one that an earlier daemon left; process.ErrNone where there is
// none. The caller holds d.mu.
func (d *Driver) child(name string) (*child.Client, error) {
	if p := d.children[name]; p != nil && p.Alive() {
		return p.Client, nil
	}
	c, err := d.adopt(name)
	if err == nil {
		d.keep(name, c)
	}
	return c, err
}

// adopt returns the process that an earlier daemon left, for keep; one that only has to go is gone then. It may wait, and needs no
// lock where nobody else adopts the same one.
func (d *Driver) adopt(name string) (*child.Client, error) {
	c, err := d.place.Adopt(name, d.childSays(name))
	if process.Replaceable(err) {
		d.log.Warn("process of tunnel is replaced: this program cannot speak to it", "tunnel", name, "why", err)
		if err := d.place.Evict(name); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("tunnel %s: %w", name, process.ErrNone)
	}
	if err != nil {
		return nil, err
	}
	d.log.Info("process of tunnel adopted", "tunnel", name, "pid", c.PID())
	return c, nil
}

// keep makes c the process of a tunnel and waits for its end. The caller holds d.mu.
func (d *Driver) keep(name string, c *child.Client) {
	deaths := 0
	if old := d.children[name]; old != nil {
		deaths = old.deaths
		old.Close()
	}
	p := &tunneld{Client: c, since: time.Now(), deaths: deaths}
	d.children[name] = p
	d.probes.ready(name, c)
	go func() {
		select {
		case <-d.closed:
		case <-c.Done():
			d.lost(name, p)
		}
	}()
}

// lost acts on the end of a process that nobody asked for.
func (d *Driver) lost(name string, p *tunneld) {
	d.mu.Lock()
	if d.children[name] != p {
		d.mu.Unlock()
		return // it was removed
	}
	why := d.place.Crash(name)
	if p.deaths++; time.Since(p.since) >= longLife {
		p.deaths = 1
	}
	pause := pauseAfter(p.deaths)
	d.mu.Unlock()
	d.log.Error("process of tunnel has ended: the tunnel carries nothing until it is started again"+why, "tunnel", name, "pid", p.PID(), "again_in", pause)
	select {
	case <-time.After(pause):
	case <-d.closed:
		return
	}
	select {
	case d.events <- Event{Tunnel: name, Why: why}:
	default:
	}
}

// pauseAfter is how long is waited after so many deaths in a row.
func pauseAfter(deaths int) time.Duration {
	if deaths <= 1 {
		return 0
	}
	return min(lastPause, firstPause<<min(deaths-2, 20))
}

// drop ends the process of a tunnel, if there is one, and removes its files.
func (d *Driver) drop(name string) error {
	if p := d.children[name]; p != nil {
		d.forget(name)
		return p.End()
	}
	c, err := d.child(name)
	d.forget(name)
	switch {
	case err == nil:
		return c.End()
	case errors.Is(err, process.ErrNone):
		return d.place.RemoveFiles(name)
	}
	return err
}

func (d *Driver) forget(name string) {
	delete(d.children, name)
	d.probes.by.Delete(name)
}

func (d *Driver) childSays(name string) func(string) {
	return func(line string) {
		if !d.probes.hear(line) {
			d.log.Warn("wireguard: "+line, "tunnel", name)
		}
	}
}

// inside runs f on a thread in the driver's network namespace, which the thread of a caller may not be in.
func (d *Driver) inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine.
		runtime.LockOSThread()
		if err := netns.Set(d.ns); err != nil {
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// inode names a network namespace.
func inode(ns netns.NsHandle) (uint64, error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(ns), &s); err != nil {
		return 0, err
	}
	return s.Ino, nil
}

// ErrNoProcess says that a tunnel has no process of its own.
var ErrNoProcess = errors.New("no process of its own")

// Process is that of a userspace tunnel. It goes on as the program that it was started from, also under a daemon of another
// version, until Restart, or until the tunnel is made anew.
type Process struct {
	Tunnel  string
	PID     int
	Program string // version of the binary; "": it is from before processes told
}

// Processes are those that this driver knows, by tunnel.
func (d *Driver) Processes() []Process {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Process
	for _, name := range slices.Sorted(maps.Keys(d.children)) {
		if p := d.children[name]; p.Alive() {
			out = append(out, Process{name, p.PID(), p.Program()})
		}
	}
	return out
}

// Restart ends the process of a tunnel. The next repair starts another, of the binary that runs; until its first handshakes
// are over the tunnel carries nothing, and nothing leaves beside it.
func (d *Driver) Restart(tunnel string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, running := d.rotating[tunnel]; running {
		return fmt.Errorf("the key of tunnel %s is being changed: wait for that", tunnel)
	}
	p := d.children[tunnel]
	if p == nil || !p.Alive() {
		return fmt.Errorf("tunnel %s has %w", tunnel, ErrNoProcess)
	}
	d.forget(tunnel)
	d.log.Info("process of tunnel ends, to be started again", "tunnel", tunnel, "pid", p.PID(), "program", p.Program())
	return p.End()
}
