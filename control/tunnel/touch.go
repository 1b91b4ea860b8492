package tunnel

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sluice/control/config"
)

const (
	// silence is how long WireGuard waits for an answer before it seeks a new session: whoever gets data answers within
	// KEEPALIVE_TIMEOUT, 10 s, and REKEY_TIMEOUT is 5 s. What is tried first waits so long, too.
	silence = 15 * time.Second
	// maxDoublings of it: a peer that is gone for long is sought less and less often, every 16 min in the end.
	maxDoublings = 6
	// retryAfter is how often a silent peer's endpoints are looked at where there is no other one.
	retryAfter = 5 * time.Second
	// session is REJECT_AFTER_TIME: without a handshake for so long there is no session.
	session = 180 * time.Second
	// keepaliveLen is an empty data packet of WireGuard: nobody answers it.
	keepaliveLen = 32
)

// touch is what is known of whether a peer hears us and we it.
type touch struct {
	device  netip.AddrPort // that its device sends to
	away    netip.AddrPort // where it was wanted when it was told to have roamed; invalid: it is there
	keys    map[string]*sighting
	heard   time.Time // when something came last; zero: never
	guessed bool      // heard is from before this process, by a handshake's time on a wall clock that may have been set since
	watched time.Time // since when sent is counted
	sent    uint64    // bytes since then
	// unanswered is when more had been sent than one sends to be polite; zero: nothing waits for an answer.
	unanswered time.Time
	// unrouted is since when its device, which cannot send, has had no route to where another endpoint may have one; zero: it
	// has. What is not sent is not counted as sent, so silence does not show it.
	unrouted time.Time
	down     time.Time // since when the key daemon has no session; zero: it has, or nobody knows
	up       bool      // the key daemon has one
}

// sighting is the last of one key of a peer.
type sighting struct {
	rx, tx    uint64
	handshake time.Time
	renewed   time.Time // when handshake was seen to change; zero: not yet
}

// seen takes what a source says of all peers of its type.
func (m *machine) seen(kind string, list []Seen, at time.Time) {
	type id struct{ tunnel, peer string }
	byName, byKey := map[id]*peer{}, map[id]*peer{}
	for _, t := range m.tunnels {
		if t.conf.Type != kind {
			continue
		}
		for _, p := range t.peers {
			byName[id{t.conf.Name, p.conf.Name}] = p
			for _, k := range p.conf.PublicKeys {
				byKey[id{t.conf.Name, k}] = p
			}
		}
	}
	staged := map[*peer]bool{}
	for _, s := range list {
		p := byKey[id{s.Tunnel, s.PublicKey}]
		if p == nil {
			p = byName[id{s.Tunnel, s.Peer}]
		}
		if p == nil {
			continue // of a tunnel that is not live any more, or not yet
		}
		m.roamed(p, s)
		p.see(s, m.keyInUse(p.of.conf, p.conf, p), at)
		if len(p.conf.PublicKeys) > 1 {
			staged[p] = true
		}
	}
	for p := range staged { // once all their keys are seen
		m.judgeKeys(p)
	}
}

// roamed tells of a peer that is heard from elsewhere than before, by its own doing: nothing is compiled for it.
func (m *machine) roamed(p *peer, s Seen) {
	if s.PublicKey != m.keyInUse(p.of.conf, p.conf, p) || !s.Endpoint.IsValid() || !p.device.IsValid() || s.Endpoint == p.device {
		return
	}
	word, from := "roamed to", p.away
	if p.away = p.inUse(); s.Endpoint == p.inUse() {
		if p.away = (netip.AddrPort{}); from != s.Endpoint {
			return // we sent its device there
		}
		word = "is back at"
	}
	m.events = append(m.events, Event{EndpointChanged, p.of.conf.Name, p.conf.Name, fmt.Sprintf("peer %s %s %s from %s", p.conf.Name, word, s.Endpoint, p.device)})
}

// see takes one sighting. A handshake's age on the wall clock counts only where the peer is seen for the first time: later
// it is the change that counts, so that a clock may be set.
func (p *peer) see(s Seen, inUse string, at time.Time) {
	if p.keys == nil {
		p.keys, p.watched = map[string]*sighting{}, at
	}
	current := s.PublicKey == inUse
	if current {
		p.device = s.Endpoint
	}
	if p.of.conf.Type != config.TypeWireGuard {
		p.session(s.Session, at)
	}
	k := p.keys[s.PublicKey]
	if k == nil || s.Rx < k.rx || s.Tx < k.tx { // the device is new to us, or new
		p.keys[s.PublicKey] = &sighting{s.Rx, s.Tx, s.Handshake, time.Time{}}
		if !current {
			return
		}
		p.watched, p.sent, p.unanswered = at, 0, time.Time{}
		if age := at.Sub(s.Handshake); !s.Handshake.IsZero() && age < session {
			if guess := at.Add(-max(age, 0)); guess.After(p.heard) {
				p.heard, p.guessed = guess, true
			}
		}
		return
	}
	if s.Rx > k.rx {
		p.hear(at)
	} else if current {
		// Of a key that is only staged nothing is expected: handshakes with it stay unanswered until the peer has it.
		p.sent += s.Tx - k.tx
	}
	if !s.Handshake.Equal(k.handshake) && !s.Handshake.IsZero() {
		k.renewed = at
	}
	k.rx, k.tx, k.handshake = s.Rx, s.Tx, s.Handshake
	if p.unanswered.IsZero() && p.sent > p.polite(at) {
		p.unanswered = at
	}
}

// hear notes that something came. A session that is up does not say that packets go through it, where a probe could.
func (p *peer) hear(at time.Time) {
	p.heard, p.guessed, p.watched, p.sent, p.unanswered = at, false, at, 0, time.Time{}
	if p.of.conf.Type == config.TypeWireGuard || p.probe == nil {
		p.tries = 0
	}
}

// polite are the bytes that may go without an answer: keepalives, and the one that says that data arrived.
func (p *peer) polite(at time.Time) uint64 {
	n := uint64(2)
	if p.conf.Keepalive > 0 {
		n += uint64(at.Sub(p.watched) / p.conf.Keepalive)
	}
	return n * keepaliveLen
}

func (p *peer) session(s Session, at time.Time) {
	p.up = s == SessionUp
	switch {
	case s != SessionDown:
		p.down = time.Time{}
		if s == SessionUp {
			p.hear(at)
		}
	case p.down.IsZero():
		p.down = at
	}
}

// inTouch says whether the peer was heard within the life of a session, and does not owe an answer for too long.
func (p *peer) inTouch(at time.Time) bool {
	_, dead := p.dead(at)
	return !dead && !p.heard.IsZero() && at.Sub(p.heard) < session
}

// dead says whether what the peer uses now has had its time and does not work, and why that is thought.
func (p *peer) dead(at time.Time) (why string, dead bool) {
	since := p.deadline()
	if since.IsZero() || at.Before(since) {
		return "", false
	}
	switch {
	case p.probeSays():
		return "probes are not answered", true
	case p.unanswered.IsZero() && !p.unrouted.IsZero():
		return fmt.Sprintf("no route to %s", p.target().Addr()), true
	case p.of.conf.Type == config.TypeWireGuard:
		return fmt.Sprintf("no answer for %s", at.Sub(later(p.unanswered, p.since)).Round(time.Second)), true
	}
	return "there is no session", true
}

// probeSays says whether the probe alone tells that nothing works: nothing else does, and nothing came since it failed.
// Where each endpoint had its session and none an answer, it is not the endpoints that the probe speaks against.
func (p *peer) probeSays() bool {
	if p.probe == nil || !p.probe.down || p.probe.held {
		return false
	}
	if p.of.conf.Type == config.TypeWireGuard {
		return p.unanswered.IsZero() && !p.heard.After(p.probe.since)
	}
	return p.down.IsZero() && (p.inVain == 0 || p.inVain < p.ways)
}

// deadline is when dead will be true if nothing more is heard; zero: not at all, as far as is known.
func (p *peer) deadline() time.Time {
	since := p.unanswered
	switch {
	case p.probeSays():
		since = p.probe.since
	case p.of.conf.Type != config.TypeWireGuard:
		since = p.down
	}
	if len(p.conf.Endpoints) == 0 || since.IsZero() && p.unrouted.IsZero() {
		return time.Time{}
	}
	var due time.Time
	if !since.IsZero() {
		// A round of all endpoints has its full time; those after it have longer.
		rounds := p.tries / max(1, p.ways)
		due = later(since, p.since).Add(silence << min(rounds, maxDoublings))
	}
	if !p.unrouted.IsZero() { // which leads to where a route is, and not round and round
		soon := later(later(p.unrouted, p.heard), p.since).Add(silence)
		if due.IsZero() || soon.Before(due) {
			due = soon
		}
	}
	return later(due, p.retry)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// keyOf is the key that Runtime names: "" stands for the file's first.
func (m *machine) keyOf(conf config.Tunnel, pc config.Peer, before *peer) string {
	key := m.kept.Tunnels[conf.Name].Peers[pc.Name].PublicKey
	if before != nil {
		key = before.key
	}
	if slices.Contains(pc.PublicKeys, key) {
		return key
	}
	return ""
}

// keyInUse is the key itself; "" where the type knows none.
func (m *machine) keyInUse(conf config.Tunnel, pc config.Peer, before *peer) string {
	if key := m.keyOf(conf, pc, before); key != "" || len(pc.PublicKeys) == 0 {
		return key
	}
	return pc.PublicKeys[0]
}

// asks says what its source has to be asked for: live, whether there is any tunnel of that type; staged, whether a peer
// has two keys, since then its first handshake with the new one is waited for; choosing, whether any has endpoints.
func (m *machine) asks(kind string) (live, staged, choosing bool) {
	for _, t := range m.tunnels {
		if t.conf.Type != kind {
			continue
		}
		live = true
		for _, p := range t.peers {
			staged = staged || len(p.conf.PublicKeys) > 1
			choosing = choosing || len(p.conf.Endpoints) > 0
		}
	}
	return live, staged, choosing
}

// judgeKeys gives a peer the key with which it shook hands last.
func (m *machine) judgeKeys(p *peer) {
	inUse := m.keyInUse(p.of.conf, p.conf, p)
	best := inUse
	for _, key := range p.conf.PublicKeys {
		if p.keys[key].newer(p.keys[best]) {
			best = key
		}
	}
	if best == inUse {
		return
	}
	p.key = best
	m.change(Event{KeyChanged, p.of.conf.Name, p.conf.Name,
		fmt.Sprintf("peer %s shook hands with its key %s: its prefixes are that one's now", p.conf.Name, best)})
}

// newer compares two keys of one peer: by what was seen to happen, and where that says nothing by the device's own times.
func (k *sighting) newer(other *sighting) bool {
	switch {
	case k == nil || k.handshake.IsZero():
		return false
	case other == nil || other.handshake.IsZero():
		return true
	case !k.renewed.Equal(other.renewed):
		return k.renewed.After(other.renewed)
	}
	return k.handshake.After(other.handshake)
}
