package ipsec

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"sluice/crypto/path"
)

// states to be: one for receiving in an epoch, and a pattern of the one for sending.
func (t *tunnel) receiving(p *peer, epoch uint64) sa {
	s := t.base(p)
	s.src, s.dst, s.spi = p.endpoint().Addr(), t.want.Local.Addr(), p.directions.receive.spi(epoch)
	if t.want.udp() {
		// No source port, which none has, so the kernel always tells where packets come from: also when that is the first place again.
		s.dport, s.told = port(t.want.Local), true
	}
	return s
}

func (t *tunnel) sending(p *peer) sa {
	at := p.endpoint()
	s := t.base(p)
	s.src, s.dst, s.mark = t.want.Local.Addr(), at.Addr(), t.want.FirewallMark
	if t.want.udp() {
		s.sport, s.dport = port(t.want.Local), port(at)
	}
	return s
}

func (t *tunnel) base(p *peer) sa {
	return sa{reqid: p.reqid, ifID: t.ifID, window: t.want.ReplayWindow}
}

// as says whether a state is like another but for SPI, key and counters. Where a packet for receiving comes from is
// nothing to the kernel, so a peer may change its address.
func (s sa) as(other sa, receiving bool) bool {
	return s.dst == other.dst && (receiving || s.src == other.src) &&
		s.sport == other.sport && s.dport == other.dport && s.reqid == other.reqid && s.ifID == other.ifID && s.mark == other.mark && s.window == other.window
}

// add puts a state into the kernel. One of ours in its place, of a peer that had another name perhaps, makes room.
func (d *Driver) add(s sa) error {
	err := d.xfrm.addState(s)
	if errors.Is(err, unix.EEXIST) {
		for _, list := range d.seen.states {
			i := slices.IndexFunc(list, func(o sa) bool { return o.spi == s.spi && o.dst == s.dst })
			if i < 0 {
				continue
			}
			if err := d.drop(list[i]); err != nil {
				return err
			}
			break
		}
		err = d.xfrm.addState(s)
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("an IPsec state to %s with SPI %#x %w: remove it, or set other ids", s.dst, s.spi, path.ErrForeign)
	case err != nil:
		return explain(fmt.Errorf("add IPsec state to %s: %w", s.dst, err))
	}
	o := owner{s.ifID, s.reqid}
	s.key = nil
	s.added = d.opts.Now().Unix()
	d.seen.states[o] = append(d.seen.states[o], s)
	return nil
}

// drop takes a state out of the kernel.
func (d *Driver) drop(s sa) error {
	if err := d.xfrm.deleteState(s); err != nil {
		return fmt.Errorf("delete IPsec state to %s with SPI %#x: %w", s.dst, s.spi, err)
	}
	o := owner{s.ifID, s.reqid}
	d.seen.states[o] = slices.DeleteFunc(slices.Clone(d.seen.states[o]), func(x sa) bool { return x.spi == s.spi && x.dst == s.dst })
	return nil
}
