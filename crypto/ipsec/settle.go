package ipsec

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/crypto/keys"
	"sluice/crypto/path"
)

// directions are what is derived for a peer.
type directions struct{ send, receive direction }

// source is what directions were derived from: the identities, and which file at which time held the secret. The mode
// counts too: a secret that others may read is refused, also one that is known already.
type source struct {
	local, remote, file string
	inode               uint64
	size                int64
	mode                fs.FileMode
	changed             int64 // nanoseconds since 1970
}

func sourceOf(t Tunnel, w Peer) source {
	s := source{local: t.ID, remote: w.ID, file: w.SecretFile}
	if info, err := os.Stat(w.SecretFile); err == nil {
		s.size, s.mode = info.Size(), info.Mode()
		if x, ok := info.Sys().(*syscall.Stat_t); ok {
			s.inode, s.changed = x.Ino, x.Ctim.Nano()
		}
	}
	return s
}

// derive is what p has where its source is the same, and else derived anew.
func (p *peer) derive(t Tunnel, w Peer) (*directions, source, error) {
	from := sourceOf(t, w)
	if p.directions != nil && from == p.derived && from.changed != 0 {
		return p.directions, from, nil
	}
	derived, err := derive(t, w)
	return derived, from, err
}

// key gives a peer its keys. Whoever has other ones has another past: what was heard was not from it.
func (t *tunnel) key(p *peer, derived *directions, from source) {
	p.directions, p.derived, p.fault = derived, from, ""
	if tag := derived.receive.tag; p.Tag != tag {
		if p.Tag != 0 {
			p.Heard, p.Again, p.received, p.lastHeard = 0, 0, 0, time.Time{}
		}
		p.Tag, t.dirty = tag, true
	}
}

// derive reads the peer's secret.
func derive(t Tunnel, w Peer) (*directions, error) {
	switch {
	case t.ID == "" || w.ID == "":
		return nil, errors.New("an identity is empty: set ipsec.id of the tunnel and id of the peer")
	case len(t.ID) > maxID || len(w.ID) > maxID:
		return nil, fmt.Errorf("an identity is longer than %d bytes", maxID)
	case t.ID == w.ID:
		return nil, fmt.Errorf("both ends have the identity %q, and would have one key for both directions: set id", t.ID)
	}
	master, err := keys.Load(w.SecretFile)
	if err != nil {
		return nil, err
	}
	send, err := newDirection(master, t.ID, w.ID)
	if err != nil {
		return nil, err
	}
	receive, err := newDirection(master, w.ID, t.ID)
	return &directions{send, receive}, err
}

const maxID = 255

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
	return s.dst == other.dst && (receiving || s.src == other.src && s.sport == other.sport) && s.dport == other.dport && (!receiving || s.sport == other.sport) && s.reqid == other.reqid && s.ifID == other.ifID && s.mark == other.mark && s.window == other.window
}

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
