package ipsec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"sluice/crypto/keys"
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
