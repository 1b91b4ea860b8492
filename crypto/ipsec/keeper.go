package ipsec

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// glance is how often the kernel's error counters are read: an SPI that nobody knows may be a peer's new epoch.
	glance = 250 * time.Millisecond
	// inspection is how often all states are read. It bounds how long a lost state is missing, and with windowAhead how fast
	// a peer may change epochs.
	inspection = 2 * time.Second
	// policyRounds is how many inspections look at states alone before one looks at policies as well.
	policyRounds = 5
	// silence is how long a peer must not have been heard before somebody listens for it.
	silence = time.Second
	// stepAfter is how long a peer is left to the step that gives it its new endpoint. That may fail, or never come.
	stepAfter = 30 * time.Second
)

// Run keeps the states of standing peers until ctx ends: it follows the epochs of those who send, begins its own next
// epoch when the time or the sequence is used up, makes anew what is missing, and listens for peers whose epoch it does
// not know. A failure is logged, and tried again at the next inspection.
func (d *Driver) Run(ctx context.Context) error {
	supervised := make(chan struct{})
	go func() {
		defer close(supervised)
		d.charons.run(ctx)
	}()
	defer func() { <-supervised }()
	var follow sync.Once // mappings of the kernel, once there are states in UDP: it may have no xfrm_user before
	following := make(chan struct{})
	defer func() {
		follow.Do(func() { close(following) })
		<-following
	}()
	ears := &listener{found: d.heard, past: d.past, now: d.opts.Now, fault: func(err error) { d.log.Error("listen for IPsec peers", "error", err) }}
	defer ears.readers.Wait()
	defer ears.close()
	tick := time.NewTicker(glance)
	defer tick.Stop()
	watch, rounds := &attention{}, 0
	if watch.due(time.Time{}, unheard); watch.blind {
		d.log.Warn("this kernel does not count IPsec errors (CONFIG_XFRM_STATISTICS): with static keys, peers in a new epoch are listened for whenever one is silent")
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !d.anyToKeep() { // a machine without tunnels is not woken
			ears.close()
			select {
			case <-ctx.Done():
				return nil
			case <-d.wake:
				watch.inspected = time.Time{} // so that what was changed reaches the disk
			}
		}
		if d.anyInUDP() {
			follow.Do(func() {
				go func() {
					defer close(following)
					d.follow(ctx, d.subscribe)
				}()
			})
		}
		now := time.Now()
		look, strange := watch.due(now, unheard)
		if !look {
			continue
		}
		silent := d.inspect(rounds%policyRounds == 0)
		rounds++
		if !d.expects(now, strange) {
			silent = nil
		}
		if err := ears.tend(ctx, silent); err != nil {
			ears.fault(err)
		}
	}
}

// unheard counts packets with an SPI that nobody stands ready for, or with one that stands for another epoch: the low bits
// of an epoch come again.
func unheard() (uint64, error) {
	all, err := Statistics()
	return all["XfrmInNoStates"] + all["XfrmInStateProtoError"], err
}

// attention says when to look at the states, and when there may be a peer to listen for.
type attention struct {
	unknown   uint64 // unheard, at the last look
	inspected time.Time
	blind     bool // the kernel does not count
}

// due says whether states are to be looked at, and whether packets have come that nobody stood ready for. Of a kernel that
// does not count they must be expected at any time.
func (a *attention) due(now time.Time, unheard func() (uint64, error)) (look, strange bool) {
	n, err := unheard()
	a.blind = errors.Is(err, fs.ErrNotExist)
	if err != nil {
		n = a.unknown
	}
	strange = n > a.unknown
	if look = strange || now.Sub(a.inspected) >= inspection; look {
		a.unknown, a.inspected = n, now
	}
	return look, strange || look && a.blind
}

// expects says whether silent peers are to be listened for, since strange packets have come or a peer was set a while ago.
func (d *Driver) expects(now time.Time, strange bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if strange {
		d.expected = now
	}
	return !d.expected.IsZero() && now.Sub(d.expected) < listenFor
}

// pause doubles from one failure to the next.
type pause struct {
	length time.Duration
	until  time.Time
}

func (p *pause) over(now time.Time) bool { return !now.Before(p.until) }

func (p *pause) after(good bool, now time.Time) {
	if good {
		*p = pause{}
		return
	}
	p.length = min(max(2*p.length, firstPause), lastPause)
	p.until = now.Add(p.length)
}

// inspect does one round, on request with the policies, and returns the peers from which nothing comes.
func (d *Driver) inspect(policies bool) (silent []ear) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		d.log.Error("IPsec epochs", "error", err)
		return nil
	}
	look := d.lookAtStates
	if policies {
		look = func() error { return errors.Join(d.look(), d.replace()) }
	}
	if err := look(); err != nil {
		d.log.Error("IPsec states and policies", "error", err)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(d.tunnels)) {
		t := d.tunnels[name]
		if err := d.keep(t); err != nil && !errors.Is(err, errUnwritten) { // which Wrote was told
			d.log.Error("IPsec states", "tunnel", name, "error", err)
		}
		silent = append(silent, d.quiet(t)...)
	}
	if err := errors.Join(append(slices.Collect(maps.Values(d.holdPorts())), d.save())...); err != nil && !errors.Is(err, errUnwritten) {
		d.log.Error("IPsec tunnels", "error", err)
	}
	return silent
}

// anyToKeep says whether a peer stands, or a file is behind.
func (d *Driver) anyToKeep() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tunnels {
		if t.dirty {
			return true
		}
		for _, p := range t.peers {
			if p.standing {
				return true
			}
		}
	}
	return false
}

// keep brings a tunnel's standing peers to what they should be.
func (d *Driver) keep(t *tunnel) error {
	now := d.opts.Now()
	var expired []string
	var failed []error
	steps := d.stepsAhead(t)
	for name, p := range t.peers {
		if !p.standing || p.directions == nil || steps[name] {
			continue
		}
		d.hear(t, p)
		st := d.take(t, p)
		if st.live != nil && p.since.IsZero() {
			p.since = d.began(*st.live)
		}
		switch {
		case st.live != nil && due(now.Sub(p.since), t.want.Rekey, st.live.seq):
			expired = append(expired, name)
		case p.Waits.IsValid() && st.live == nil || d.ready(p):
			failed = append(failed, d.moveOn(t, p))
		case st.live == nil || len(st.missing)+len(st.surplus)+len(st.old) > 0:
			failed = append(failed, d.settle(t, p, false))
		}
	}
	if len(expired) > 0 {
		failed = append(failed, d.rotate(t, expired))
	}
	return errors.Join(failed...)
}

// stepsAhead names the peers that are still where they were before a plan whose step has written the tunnel: theirs is about to
// come. An epoch that began meanwhile, towards the endpoint that was, would have the new one wait for the next.
func (d *Driver) stepsAhead(t *tunnel) (names map[string]bool) {
	for _, w := range t.want.Peers {
		p := t.peers[w.Name]
		if p == nil {
			continue
		}
		if p.want.Endpoint == w.Endpoint {
			p.behind = time.Time{}
			continue
		}
		if p.behind.IsZero() {
			p.behind = d.opts.Now()
		}
		if since := d.opts.Now().Sub(p.behind); since >= 0 && since < stepAfter { // the clock may have been set back
			if names == nil {
				names = map[string]bool{}
			}
			names[w.Name] = true
		}
	}
	return names
}

// hear moves a peer's window to the highest epoch of which an authentic packet came.
func (d *Driver) hear(t *tunnel, p *peer) {
	received := uint64(0)
	have := d.seen.states[owner{t.ifID, p.reqid}]
	for _, s := range have {
		if p.directions.receive.owns(s.spi) {
			received += s.packets
		}
	}
	for _, e := range window(p.Heard) {
		spi := p.directions.receive.spi(e)
		if slices.ContainsFunc(have, func(s sa) bool { return s.spi == spi && s.packets > 0 }) && e > p.Heard {
			p.Heard, p.turned, t.dirty = e, d.opts.Now(), true
		}
	}
	// Less than before: a state has gone with its count.
	if received > p.received {
		p.lastHeard = d.opts.Now()
	}
	p.received = received
}

// quiet returns the standing peers of t that have not been heard for a while.
func (d *Driver) quiet(t *tunnel) (out []ear) {
	for name, p := range t.peers {
		if p.standing && p.directions != nil && d.opts.Now().Sub(p.lastHeard) >= silence {
			out = append(out, ear{tunnel: t.want.Name, peer: name, local: t.want.Local, udp: t.want.udp(), direction: p.directions.receive, heard: p.Heard})
		}
	}
	return out
}

// heard takes over what listening found: from here on the peer is received in that epoch. An epoch below one that was
// heard is somebody's replay. The peer may have been given other keys meanwhile.
func (d *Driver) heard(e ear, epoch uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tunnels[e.tunnel]
	if t == nil || t.peers[e.peer] == nil || !t.peers[e.peer].standing {
		return nil
	}
	p := t.peers[e.peer]
	if epoch <= p.Heard || p.directions == nil || p.directions.receive.tag != e.direction.tag {
		return nil
	}
	d.log.Info("IPsec peer found in another epoch", "tunnel", e.tunnel, "peer", e.peer, "epoch", epoch, "before", p.Heard)
	p.Heard, t.dirty, p.lastHeard = epoch, true, d.opts.Now()
	// What stands may have an SPI of the new window, and another epoch's key.
	var failed []error
	for _, s := range slices.Clone(d.seen.states[owner{t.ifID, p.reqid}]) {
		if p.directions.receive.owns(s.spi) {
			failed = append(failed, d.drop(s))
		}
	}
	failed = append(failed, d.settle(t, p, false))
	p.Again = 0 // it was not received in before, and who speaks first from behind a NAT is answered at once
	return errors.Join(append(failed, d.save())...)
}
