package ike

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/crypto/keys"
)

// load brings a connection and its key into charon, the key first: a connection without one fails as soon as its peer
// comes. What is there already is not sent again.
func (s *session) load(ctx context.Context, conn Conn) error {
	key, err := keyOf(conn)
	if err != nil {
		return err
	}
	have, err := s.conns(ctx, conn.name())
	if err != nil {
		return err
	}
	id := secretID(conn.Tunnel, conn.Peer, conn.SecretFile, key)
	var held []secret
	if len(have) > 0 { // a new connection has no key yet, and lists of a thousand keys are long
		if held, err = s.secrets(ctx); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(held, func(h secret) bool { return h.id == id }) {
		m, err := conn.loadShared(key)
		if err != nil {
			return fmt.Errorf("tunnel %s, peer %s: %w", conn.Tunnel, conn.Peer, err)
		}
		if _, err := s.ask(ctx, "load-shared", m); err != nil {
			return err
		}
	}
	if len(have) != 1 || have[0].Digest != conn.Digest() {
		if err := s.loadConn(ctx, conn, len(have) > 0); err != nil {
			return err
		}
	}
	return s.forgetSecrets(ctx, held, conn.name(), id)
}

// loadConn also ends attempts of a former connection that are under way: they go on with what that was, to another address
// maybe.
func (s *session) loadConn(ctx context.Context, conn Conn, replaces bool) error {
	var before []IKESA
	if replaces {
		var err error
		if before, err = s.associations(ctx, conn.name()); err != nil {
			return err
		}
	}
	m, err := conn.loadConn()
	if err != nil {
		return fmt.Errorf("tunnel %s, peer %s: %w", conn.Tunnel, conn.Peer, err)
	}
	if _, err := s.ask(ctx, "load-conn", m); err != nil {
		return fmt.Errorf("tunnel %s, peer %s: %w", conn.Tunnel, conn.Peer, err)
	}
	for _, sa := range before {
		if sa.pending() && sa.Initiator {
			if err := s.terminateIKE(ctx, sa.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// unload takes the connection out first, so that nothing comes up again behind the SAs that are closed next.
func (s *session) unload(ctx context.Context, tunnel, peer string) error {
	have, err := s.conns(ctx, connName(tunnel, peer))
	if err != nil {
		return err
	}
	for _, l := range have {
		if _, err := s.ask(ctx, "unload-conn", arguments("name", connName(l.Tunnel, l.Peer))); err != nil {
			return err
		}
	}
	held, err := s.secrets(ctx)
	if err != nil {
		return err
	}
	if err := s.forgetSecrets(ctx, held, connName(tunnel, peer), ""); err != nil {
		return err
	}
	sas, err := s.associations(ctx, connName(tunnel, peer))
	if err != nil {
		return err
	}
	for _, sa := range sas {
		if err := s.terminateIKE(ctx, sa.ID); err != nil {
			return err
		}
	}
	return nil
}

// secrets returns the shared keys of ours that charon holds.
func (s *session) secrets(ctx context.Context) ([]secret, error) {
	m, err := s.ask(ctx, "get-shared", nil)
	if err != nil {
		return nil, err
	}
	answer := newSection(m)
	var out []secret
	for _, id := range answer.list("keys") {
		if held, ours := parseSecretID(id); ours {
			out = append(out, held)
		}
	}
	return out, *answer.err
}

// forgetSecrets takes a connection's keys out, but for the one to keep. An SA that is up needs its key no more.
func (s *session) forgetSecrets(ctx context.Context, held []secret, conn, keep string) error {
	for _, h := range held {
		if h.conn != conn || h.id == keep {
			continue
		}
		if _, err := s.ask(ctx, "unload-shared", arguments("id", h.id)); err != nil {
			return err
		}
	}
	return nil
}

// conns lists connections of ours without a look at their keys; name "" means all.
func (s *session) conns(ctx context.Context, name string) ([]Loaded, error) {
	messages, err := s.stream(ctx, "list-conns", "list-conn", arguments("ike", name))
	if err != nil {
		return nil, err
	}
	var out []Loaded
	for _, m := range messages {
		l, err := parseConn(m)
		if err != nil {
			return nil, fmt.Errorf("list-conns at %s: %w", s.socket, err)
		}
		if l != nil {
			out = append(out, *l)
		}
	}
	slices.SortFunc(out, func(a, b Loaded) int { return strings.Compare(connName(a.Tunnel, a.Peer), connName(b.Tunnel, b.Peer)) })
	return out, nil
}

// loaded is conns with the files of their keys.
func (s *session) loaded(ctx context.Context) ([]Loaded, error) {
	held, err := s.secrets(ctx)
	if err != nil {
		return nil, err
	}
	byConn := map[string][]secret{}
	for _, h := range held {
		byConn[h.conn] = append(byConn[h.conn], h)
	}
	list, err := s.conns(ctx, "")
	for i, l := range list {
		list[i].SecretFile = fileOf(byConn[connName(l.Tunnel, l.Peer)])
	}
	return list, err
}

// fileOf returns the file whose key charon holds for a connection, if the file still says that.
func fileOf(held []secret) string {
	if len(held) != 1 {
		return UnknownKey
	}
	if key, err := keys.Load(held[0].file); err != nil || secretDigest(key) != held[0].digest {
		return UnknownKey
	}
	return held[0].file
}

// associations lists SAs of ours; name "" means all.
func (s *session) associations(ctx context.Context, name string) ([]IKESA, error) {
	messages, err := s.stream(ctx, "list-sas", "list-sa", arguments("ike", name))
	if err != nil {
		return nil, err
	}
	var out []IKESA
	for _, m := range messages {
		sa, err := parseSA(m)
		if err != nil {
			return nil, fmt.Errorf("list-sas at %s: %w", s.socket, err)
		}
		if sa != nil {
			out = append(out, *sa)
		}
	}
	return out, nil
}

// atOnce is the timeout, in milliseconds, of a command whose end is not waited for.
const atOnce = "-1"

func (s *session) initiate(ctx context.Context, tunnel, peer, digest string) error {
	_, err := s.ask(ctx, "initiate", arguments("ike", connName(tunnel, peer), "child", digest, "timeout", atOnce))
	return err
}

// terminateIKE tells the peer and does not wait for its answer: a dead peer's states would stay for minutes.
func (s *session) terminateIKE(ctx context.Context, id uint32) error {
	return s.terminate(ctx, "ike-id", id, "yes")
}

func (s *session) terminateChild(ctx context.Context, id uint32) error {
	return s.terminate(ctx, "child-id", id, "")
}

// terminate is content if the SA has ended by itself meanwhile, which charon calls a failure.
func (s *session) terminate(ctx context.Context, key string, id uint32, force string) error {
	m, err := s.CommandRequest("terminate", arguments(key, fmt.Sprint(id), "force", force, "timeout", atOnce))
	if m == nil {
		return fmt.Errorf("terminate: %w", s.broken(ctx, err))
	}
	if matches, _ := m.Get("matches").(string); err != nil && matches != "0" && matches != "" {
		return fmt.Errorf("%w to terminate: %v", ErrRefused, m.Get("errmsg"))
	}
	return nil
}
