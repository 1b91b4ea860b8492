package ike

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// holdings are what charon has at one moment of what we gave it.
type holdings struct {
	conns  map[string]Loaded // by name
	shared map[string]int    // how many preshared keys, by name of the connection
	keys   []string          // private ones, of others as well
}

func (s *session) holdings(ctx context.Context) (h holdings, err error) {
	secrets, err := s.secrets(ctx)
	if err != nil {
		return h, err
	}
	conns, err := s.conns(ctx, "")
	if err != nil {
		return h, err
	}
	h = holdings{conns: map[string]Loaded{}, shared: map[string]int{}}
	for _, l := range conns {
		h.conns[connName(l.Tunnel, l.Peer)] = l
	}
	for _, x := range secrets {
		h.shared[x.conn]++
	}
	h.keys, err = s.keyIDs(ctx)
	return h, err
}

// whole says whether a connection is there as it is wanted, with what proves it.
func (h holdings) whole(conn Conn, child string) bool {
	l, ok := h.conns[conn.name()]
	if !ok || l.Digest != child {
		return false
	}
	if conn.Certificates == nil {
		return h.shared[conn.name()] == 1
	}
	_, keyID := splitChild(child)
	return slices.Contains(h.keys, keyID)
}

// restore loads what charon lacks of what is wanted, and certificates that were exchanged on the disk. It returns the wanted connections
// that are loaded now, and how many could not be.
func (c *Client) restore(ctx context.Context, s *session, held holdings) (ready []Loaded, missing int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range held.conns {
		if _, id := splitChild(l.Digest); id != "" {
			c.keyIDs[id] = true
		}
	}
	look := reading{}
	for name, want := range c.wanted {
		child, p, err := look.child(want)
		l := held.conns[name]
		if err == nil && held.whole(want, child) {
			delete(c.broken, name)
			ready = append(ready, l)
			continue
		}
		if err == nil {
			if p.chain == nil && want.Certificates == nil {
				p, err = proofOf(want)
			}
			if err == nil {
				err = s.load(ctx, want, p)
			}
		}
		switch {
		case errors.Is(err, ErrNoCharon) || ctx.Err() != nil:
			return nil, 0, err
		case err == nil:
			c.log.Info("loaded a connection that charon lacked", "tunnel", want.Tunnel, "peer", want.Peer)
			ready = append(ready, Loaded{Tunnel: want.Tunnel, Peer: want.Peer, Digest: child, LocalID: want.LocalID, RemoteID: want.RemoteID})
		case l.Is(want): // with certificates that were good
			ready = append(ready, l)
		default:
			missing++
		}
		c.complain(want, err)
	}
	spent := c.spent(ready)
	if err := s.forgetKeys(ctx, spent); err != nil {
		return nil, 0, err
	}
	for id := range spent {
		delete(c.keyIDs, id)
	}
	return ready, missing, nil
}

// complain says once why a connection cannot be loaded.
func (c *Client) complain(conn Conn, err error) {
	if err == nil {
		delete(c.broken, conn.name())
		return
	}
	if c.broken[conn.name()] != err.Error() {
		c.log.Error("a connection cannot be loaded, or not with what its files hold now", "tunnel", conn.Tunnel, "peer", conn.Peer, "error", err)
	}
	c.broken[conn.name()] = err.Error()
}

// spent are private keys that charon had of us, and that none of these connections has.
func (c *Client) spent(ready []Loaded) map[string]bool {
	out := map[string]bool{}
	for id := range c.keyIDs {
		out[id] = true
	}
	for _, l := range ready {
		_, id := splitChild(l.Digest)
		delete(out, id)
	}
	return out
}

// reading remembers for one look what files of certificates hold: all peers of a tunnel have the same.
type reading map[string]struct {
	proof proof
	err   error
}

// child is the name of a connection's child by what its files hold now.
func (r reading) child(conn Conn) (string, proof, error) {
	if conn.Certificates == nil {
		return conn.childName(proof{}), proof{}, nil // its key is not read at every look: the engine looks at that
	}
	key := fmt.Sprintf("%q %q", *conn.Certificates, conn.LocalID)
	x, ok := r[key]
	if !ok {
		x.proof, x.err = proofOf(conn)
		r[key] = x
	}
	if x.err != nil {
		return "", proof{}, x.err
	}
	return conn.childName(x.proof), x.proof, nil
}
