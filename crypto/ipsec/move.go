package ipsec

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// place is where a peer is sent to. It is in the tunnel's file: a restart of the daemon moves nobody.
type place struct {
	At   netip.AddrPort `json:"at,omitzero"`   // where it moved to; invalid: it is where want has it
	From netip.AddrPort `json:"from,omitzero"` // want's endpoint then: where that is another, At and Waits are nothing
	// Waits is where it is moved to once its epochs allow it; invalid: nowhere.
	Waits netip.AddrPort `json:"waits,omitzero"`
	// Again is the epoch whose state for receiving was made after it had been heard; 0: none. Until the next one, packets that
	// somebody recorded before are authentic once more.
	Again uint64 `json:"again,omitempty"`
}

const (
	// moveAfter is between two moves of a peer.
	moveAfter = 2 * time.Second
	// askAfter is between two looks at what a mapping is worth.
	askAfter = 500 * time.Millisecond
	// spell is how long an epoch lasts at least that comes of a move, where epochs are ahead of the clock: that falls behind by
	// half of the time that passes.
	spell = 2 * time.Minute
)

// may says whether the next epoch may begin because somebody outside wants it, as a peer that moves does, or an endpoint that
// does not answer. Epochs are safe without the disk where they do not run ahead of the clock (one a minute, see epoch.go).
// Rekeying once a day leaves it far ahead, so the first move is at once.
func (p *peer) may(now time.Time) bool {
	return max(p.Sent, p.used+1) <= sinceStart(now)+1 || !p.since.IsZero() && now.Sub(p.since) >= spell
}

// endpoint is where the peer is sent to.
func (p *peer) endpoint() netip.AddrPort {
	if p.At.IsValid() {
		return p.At
	}
	return p.want.Endpoint
}

// aim is for a peer that is wanted at another endpoint. What sends goes on where it is, until an epoch may begin.
func (d *Driver) aim(t *tunnel, p *peer, to netip.AddrPort) {
	before, sends := p.endpoint(), p.directions != nil && d.take(t, p).live != nil
	p.At, p.From, p.Waits = netip.AddrPort{}, to, netip.AddrPort{}
	if sends && before != to && before.Addr().Is4() == to.Addr().Is4() && !p.may(d.opts.Now()) {
		p.At, p.Waits = before, to
	}
	t.dirty = true
}

// move sends to a peer where its packets come from now, or notes that it waits for that.
func (d *Driver) move(m mapping) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tunnels {
		_, p := t.byReqid(m.reqid)
		if p == nil || !p.standing || p.directions == nil || !t.want.udp() || m.local != t.want.Local.Addr() || !p.directions.receive.owns(m.spi) {
			continue
		}
		if before := p.endpoint(); m.from == netip.AddrPortFrom(before.Addr(), port(before)) {
			p.claim = netip.AddrPort{}
			if p.Waits != p.want.Endpoint { // that is the file's wish, and not the peer's
				p.Waits = netip.AddrPort{}
			}
			return nil
		}
		if p.replayable(m.spi) {
			if believed, err := d.ask(t, p, m); err != nil || !believed {
				return err
			}
		}
		// States are read when something is to be done, and not for each packet that somebody sends from another port.
		if p.Waits = m.from; !d.ready(p) {
			return nil
		}
		if err := d.lookAtStates(); err != nil {
			return err
		}
		return d.moveOn(t, p)
	}
	return nil
}

// replayable says whether an SPI is of an epoch that was received in before its state was made.
func (p *peer) replayable(spi uint32) bool {
	return p.Again != 0 && spi == p.directions.receive.spi(p.Again)
}

// ask reads the states, once in a while, for believes.
func (d *Driver) ask(t *tunnel, p *peer, m mapping) (bool, error) {
	now := d.opts.Now()
	if since := now.Sub(p.asked); since >= 0 && since < askAfter {
		return false, nil
	}
	p.asked = now
	if err := d.lookAtStates(); err != nil {
		return false, err
	}
	return d.believes(t, p, m), nil
}

// believes says whether a mapping in a replayable epoch is the peer's doing, for a replay has the kernel tell of one too. A
// place is believed when it twice in a row raised the highest sequence number, which who records only what the peer sends
// cannot do while the peer speaks.
func (d *Driver) believes(t *tunnel, p *peer, m mapping) bool {
	have := d.seen.states[owner{t.ifID, p.reqid}]
	i := slices.IndexFunc(have, func(s sa) bool { return s.spi == m.spi && s.dst == m.local })
	if i < 0 || have[i].seq <= p.top {
		return false
	}
	p.top = have[i].seq
	if p.claim == m.from {
		return true
	}
	p.claim = m.from
	return false
}

// ready says whether a peer that waits may be moved.
func (d *Driver) ready(p *peer) bool {
	now := d.opts.Now()
	return p.Waits.IsValid() && p.may(now) && now.Sub(p.moved) >= moveAfter
}

// moveOn moves a peer to where it waits to be. A state for sending to another place is another epoch's, as ever.
func (d *Driver) moveOn(t *tunnel, p *peer) error {
	to, before, was := p.Waits, p.endpoint(), p.place
	there := p.want
	there.Endpoint = to
	p.Waits, p.claim = netip.AddrPort{}, netip.AddrPort{}
	if err := d.ambiguous(t, there, p.directions); err != nil {
		return err
	}
	p.At, p.From, p.moved, t.dirty = to, p.want.Endpoint, d.opts.Now(), true
	if to == p.want.Endpoint {
		p.At = netip.AddrPort{}
	}
	failed := []error{d.settle(t, p, false)}
	if p.live == 0 { // nothing sends there: the policies stay with what does
		p.place, t.dirty = was, true // the disk may have the other already
		p.live = d.take(t, p).epoch
	} else {
		d.log.Info("IPsec peer moved", "tunnel", t.want.Name, "peer", p.want.Name, "from", before, "to", to)
		for _, want := range t.policies(p) {
			failed = append(failed, d.place(want))
		}
		failed = append(failed, d.save())
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("peer %s of %s: %w", p.want.Name, t.want.Name, err)
	}
	return nil
}
