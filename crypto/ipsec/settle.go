package ipsec

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// stock sorts a peer's states by use. live is the newest for sending, if there is one; all that is not needed is surplus.
type stock struct {
	live    *sa
	epoch   uint64 // of live
	missing []uint64
	surplus []sa
	old     []sa // for sending, replaced by live
}

func (d *Driver) take(t *tunnel, p *peer) stock {
	var st stock
	have := slices.Clone(d.seen.states[owner{t.ifID, p.reqid}])
	stands := func(epoch uint64) bool {
		want, before := t.receiving(p, epoch), len(have)
		have = slices.DeleteFunc(have, func(s sa) bool { return s.spi == want.spi && s.as(want, true) })
		return len(have) < before
	}
	for _, e := range window(p.Heard) {
		if !stands(e) {
			st.missing = append(st.missing, e)
		}
	}
	if p.Heard > 1 && d.lingers(p) {
		stands(p.Heard - 1) // or does not: nothing is missing
	}
	// What once sent and fits again, since an address is what it was, is of an epoch that the other end has left behind.
	newest := uint64(0)
	for _, s := range have {
		if epoch, ok := latest(s.spi, p.Sent); ok && p.directions.send.owns(s.spi) {
			newest = max(newest, epoch)
		}
	}
	pattern := t.sending(p)
	for _, s := range have {
		epoch, ok := latest(s.spi, p.Sent)
		if !ok || !p.directions.send.owns(s.spi) || !s.as(pattern, false) {
			st.surplus = append(st.surplus, s)
			continue
		}
		if epoch < newest || st.live != nil && st.epoch > epoch {
			st.old = append(st.old, s)
			continue
		}
		if st.live != nil {
			st.old = append(st.old, *st.live)
		}
		st.live, st.epoch = &s, epoch
	}
	return st
}

// overlap is how long a replaced state for sending stays: a packet may have been given to it already.
const overlap = time.Second

// settle brings the states of a peer to what they should be: ready to receive in the window, and one that sends. With
// anew it sends in the next epoch from now on.
func (d *Driver) settle(t *tunnel, p *peer, anew bool) error {
	st := d.take(t, p)
	var failed []error
	p.live = st.epoch
	if st.live == nil || anew {
		if err := d.begin(t, p); err != nil {
			return err
		}
		if st.live != nil {
			st.old = append(st.old, *st.live)
		}
	} else if p.since.IsZero() {
		p.since = d.began(*st.live)
	}
	for _, s := range st.surplus {
		// One for sending to another endpoint has the traffic until the policy changes.
		if p.directions.send.owns(s.spi) {
			st.old = append(st.old, s)
			continue
		}
		failed = append(failed, d.drop(s))
	}
	for _, e := range st.missing {
		s := t.receiving(p, e)
		key, err := p.directions.receive.key(e)
		if err == nil {
			s.key = key
			err = d.add(s)
		}
		if e == p.Heard && err == nil {
			p.Again, p.claim, p.top, t.dirty = e, netip.AddrPort{}, 0, true
		}
		failed = append(failed, err)
	}
	p.retiring = len(st.old) > 0 && d.opts.Now().Sub(p.since) < overlap
	if !p.retiring {
		for _, s := range st.old {
			failed = append(failed, d.drop(s))
		}
	}
	return errors.Join(failed...)
}

// began is when a state was made, by a clock that may have been set since.
func (d *Driver) began(s sa) time.Time {
	now := d.opts.Now()
	if at := time.Unix(s.added, 0); at.Before(now) {
		return at
	}
	return now
}

// begin makes the state for sending of the next epoch. The kernel takes the newest of those that fit, so this is the
// change; what was given to the old one still leaves.
func (d *Driver) begin(t *tunnel, p *peer) error {
	if !p.reserved() {
		if err := d.reserve(t, []string{p.want.Name}); err != nil {
			return err
		}
	}
	s := t.sending(p)
	e := p.take()
	for d.lives(t, p, e) { // the file was lost, and the kernel knows better
		if err := d.reserve(t, []string{p.want.Name}); err != nil {
			return err
		}
		e = p.take()
	}
	key, err := p.directions.send.key(e)
	if err != nil {
		return err
	}
	s.spi, s.key = p.directions.send.spi(e), key
	if err := d.add(s); err != nil {
		return err
	}
	p.live, p.since = e, d.opts.Now()
	d.log.Info("IPsec epoch begun", "tunnel", t.want.Name, "peer", p.want.Name, "epoch", e, "spi", fmt.Sprintf("%#x", s.spi))
	return nil
}

// lives says whether the kernel has a state, of whatever peer's name, that sends in an epoch or in one a little later.
func (d *Driver) lives(t *tunnel, p *peer, epoch uint64) bool {
	for o, list := range d.seen.states {
		for _, s := range list {
			ahead := (uint64(s.spi) - epoch) & spiMask
			if o.ifID == t.ifID && s.dst == p.endpoint().Addr() && p.directions.send.owns(s.spi) && ahead <= spiMask/2 {
				return true
			}
		}
	}
	return false
}
