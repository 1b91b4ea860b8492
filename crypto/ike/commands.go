package ike

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/strongswan/govici/vici"

	"sluice/crypto/keys"
)

// load brings a connection and what proves it into charon, that first: a connection without it fails as soon as its peer
// comes. What is there already is not sent again.
func (s *session) load(ctx context.Context, conn Conn, p proof) error {
	have, err := s.conns(ctx, conn.name())
	if err != nil {
		return err
	}
	replaces := len(have) > 0
	given, keep := false, ""
	var held []secret
	if conn.Certificates != nil {
		given, err = s.giveKey(ctx, p)
	} else {
		keep = secretID(conn.Tunnel, conn.Peer, conn.SecretFile, p.shared)
	}
	if err == nil && replaces { // a new connection has no secret yet, and lists of a thousand are long
		held, err = s.secrets(ctx)
	}
	if err == nil && keep != "" && !slices.ContainsFunc(held, func(h secret) bool { return h.id == keep }) {
		err = s.give(ctx, "load-shared", func() (*vici.Message, error) { return conn.loadShared(p.shared) })
	}
	// Who took the private key out has taken certificates along, maybe: those come with the connection.
	if err == nil && (given || len(have) != 1 || have[0].Digest != conn.childName(p)) {
		err = s.loadConn(ctx, conn, p, replaces)
	}
	if err != nil {
		return fmt.Errorf("tunnel %s, peer %s: %w", conn.Tunnel, conn.Peer, err)
	}
	return s.forgetSecrets(ctx, held, conn.name(), keep)
}

// give sends what a message holds.
func (s *session) give(ctx context.Context, command string, message func() (*vici.Message, error)) error {
	m, err := message()
	if err == nil {
		_, err = s.ask(ctx, command, m)
	}
	return err
}

// giveKey brings a private key into charon; given is false where it was there.
func (s *session) giveKey(ctx context.Context, p proof) (given bool, err error) {
	held, err := s.keyIDs(ctx)
	if err != nil || slices.Contains(held, p.keyID()) {
		return false, err
	}
	return true, s.give(ctx, "load-key", p.loadKey)
}

// keyIDs are the private keys that charon holds, ours and others.
func (s *session) keyIDs(ctx context.Context) ([]string, error) {
	m, err := s.ask(ctx, "get-keys", nil)
	if err != nil {
		return nil, err
	}
	answer := newSection(m)
	return answer.list("keys"), *answer.err
}

// forgetKeys takes private keys out that no connection of ours has any more. Certificates stay until charon ends: it has no command
// for them, and a connection believes its own CAs alone.
func (s *session) forgetKeys(ctx context.Context, ids map[string]bool) error {
	if len(ids) == 0 {
		return nil
	}
	conns, err := s.conns(ctx, "")
	if err != nil {
		return err
	}
	held, err := s.keyIDs(ctx)
	if err != nil {
		return err
	}
	for _, l := range conns {
		_, used := splitChild(l.Digest)
		held = slices.DeleteFunc(held, func(id string) bool { return id == used })
	}
	for _, id := range held {
		if !ids[id] {
			continue
		}
		if _, err := s.ask(ctx, "unload-key", arguments("id", id)); err != nil {
			return err
		}
	}
	return nil
}

// loadConn also ends attempts of a former connection that are under way: they go on with what that was, to another address
// maybe.
func (s *session) loadConn(ctx context.Context, conn Conn, p proof, replaces bool) error {
	var before []IKESA
	if replaces {
		var err error
		if before, err = s.associations(ctx, conn.name()); err != nil {
			return err
		}
	}
	if conn.Certificates != nil {
		between, err := p.loadBetween()
		for _, m := range between {
			if err == nil {
				_, err = s.ask(ctx, "load-cert", m)
			}
		}
		if err != nil {
			return err
		}
	}
	if err := s.give(ctx, "load-conn", func() (*vici.Message, error) { return conn.loadConn(p) }); err != nil {
		return err
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

// unload takes the connection out first, so that nothing comes up again behind the SAs that are closed next. keyIDs gets the names
// of private keys that it had.
func (s *session) unload(ctx context.Context, tunnel, peer string, keyIDs map[string]bool) error {
	have, err := s.conns(ctx, connName(tunnel, peer))
	if err != nil {
		return err
	}
	for _, l := range have {
		if _, id := splitChild(l.Digest); id != "" {
			keyIDs[id] = true
		}
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

// loaded is conns with the files of their keys. A connection by certificates has none.
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
		if _, certified := splitChild(l.Digest); certified != "" && list[i].SecretFile == UnknownKey {
			list[i].SecretFile = ""
		}
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
