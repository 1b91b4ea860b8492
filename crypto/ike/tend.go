package ike

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// times are the patience of the supervision.
type times struct {
	grace   time.Duration // how long the end that does not lead waits for the one that does; charon repeats a lost packet after 4 s
	attempt time.Duration // how long an attempt to establish may take before it is made anew: charon itself waits up to 76 s between two packets
	settle  time.Duration // how long new SAs stand before what they replace is closed
	double  time.Duration // how long two SAs for the same may stand: a rekeying has two for a moment
	look    time.Duration // how often everything is looked at, with nothing to wait for
	reload  time.Duration // how often a charon that is away is looked for

	patience time.Duration // of one command
}

var defaultTimes = times{
	grace: 6 * time.Second, attempt: 10 * time.Second, settle: time.Second, double: 5 * time.Second,
	look: 30 * time.Second, reload: 500 * time.Millisecond, patience: patience,
}

// tender decides what is to be done about the SAs of loaded connections, from what charon tells at one moment and what
// was seen before. It does nothing itself.
type tender struct {
	times
	seen map[string]*history // by name of the connection
}

// history is what one connection's decisions depend on beside the moment. Zero times are "not so".
type history struct {
	down    time.Time            // nothing current is up since
	up      bool                 // traffic is carried, as was told last
	doubled time.Time            // more than one is up since
	tried   time.Time            // initiated last
	pending map[uint32]time.Time // attempts, by IKE_SA, since
}

// action is one step of the supervision.
type action struct {
	kind         actionKind
	tunnel, peer string
	digest       string // of initiate
	id           uint32 // of what is closed
	why          string
}

type actionKind string

const (
	initiate   actionKind = "initiate"
	closeIKE   actionKind = "close IKE_SA"
	closeChild actionKind = "close CHILD_SA"
)

func (a action) String() string {
	return fmt.Sprintf("%s %s:%s %d (%s)", a.kind, a.tunnel, a.peer, a.id, a.why)
}

func newTender(t times) *tender { return &tender{times: t, seen: map[string]*history{}} }

// step returns what is to be done now, what came up or went down since the last step, and when to come again.
func (t *tender) step(now time.Time, conns []Loaded, sas []IKESA) (do []action, changes []Event, next time.Duration) {
	next = t.look
	byName := map[string][]IKESA{}
	for _, sa := range sas {
		name := connName(sa.Tunnel, sa.Peer)
		byName[name] = append(byName[name], sa)
	}
	loaded := map[string]bool{}
	for _, l := range conns {
		name := connName(l.Tunnel, l.Peer)
		loaded[name] = true
		if t.seen[name] == nil {
			t.seen[name] = &history{pending: map[uint32]time.Time{}}
		}
		v := view{times: t.times, now: now, conn: l, history: t.seen[name], next: next}
		v.look(byName[name])
		v.judge()
		do, changes, next = append(do, v.do...), append(changes, v.changes...), v.next
	}
	for name := range t.seen {
		if !loaded[name] {
			delete(t.seen, name)
		}
	}
	return do, changes, next
}

// view is one connection at one moment.
type view struct {
	times
	*history
	now     time.Time
	conn    Loaded
	current []childOf // up, and of the configuration that is loaded; oldest first
	stale   []childOf // up, of a former one
	idle    []IKESA   // established, with no child at all
	waiting []IKESA   // on their way
	do      []action
	changes []Event
	next    time.Duration
}

// childOf is a CHILD_SA with the IKE_SA that it hangs on.
type childOf struct {
	ChildSA
	ike IKESA
}

func (v *view) look(sas []IKESA) {
	pending := map[uint32]time.Time{}
	for _, sa := range sas {
		if sa.pending() {
			v.waiting = append(v.waiting, sa)
			pending[sa.ID] = since(v.pending[sa.ID], v.now)
		}
		if sa.State == "ESTABLISHED" && len(sa.Children) == 0 && sa.Age > v.settle {
			v.idle = append(v.idle, sa)
		}
		for _, c := range sa.Children {
			switch {
			case c.live() && c.Name == v.conn.Digest:
				v.current = append(v.current, childOf{c, sa})
			case c.live():
				v.stale = append(v.stale, childOf{c, sa})
			}
		}
	}
	v.pending = pending
	slices.SortStableFunc(v.current, func(a, b childOf) int { return cmp.Compare(a.ID, b.ID) })
}

func since(before, now time.Time) time.Time {
	if before.IsZero() {
		return now
	}
	return before
}

func (v *view) judge() {
	if len(v.current) == 0 {
		v.raise()
		return
	}
	v.tell(true)
	v.down, v.tried = time.Time{}, time.Time{}
	v.tidy()
}

// tell says whether traffic is carried, where that has changed.
func (v *view) tell(up bool) {
	if up == v.up {
		return
	}
	v.up = up
	kind := PeerDown
	if up {
		kind = PeerUp
	}
	v.changes = append(v.changes, Event{Kind: kind, Tunnel: v.conn.Tunnel, Peer: v.conn.Peer})
}

// raise is for a connection of which nothing is up, or only what was configured before.
func (v *view) raise() {
	v.tell(len(v.stale) > 0)
	v.down, v.doubled = since(v.down, v.now), time.Time{}
	for _, sa := range v.waiting {
		if !v.due(v.pending[sa.ID], v.attempt) {
			return
		}
		v.close(closeIKE, sa.ID, "no answer so far, so it is tried anew")
	}
	grace := v.grace
	if leads(v.conn.LocalID, v.conn.RemoteID) {
		grace = 0
	}
	if !v.due(v.down, grace) || !v.tried.IsZero() && !v.due(v.tried, v.attempt) {
		return
	}
	v.tried = v.now
	v.wake(v.attempt)
	v.do = append(v.do, action{kind: initiate, tunnel: v.conn.Tunnel, peer: v.conn.Peer, digest: v.conn.Digest, why: "nothing is established"})
}

// tidy closes what was replaced, and what stands twice: of those, the end that leads keeps the newest, so that the two
// ends cannot each close what the other keeps.
func (v *view) tidy() {
	newest := v.current[len(v.current)-1]
	keep := newest.ike.ID
	if len(v.stale)+len(v.idle) > 0 && v.due(v.now.Add(-newest.Age), v.settle) {
		for _, c := range v.stale {
			v.retire(c, keep, "its configuration was replaced")
		}
		for _, sa := range v.idle {
			if sa.ID != keep {
				v.close(closeIKE, sa.ID, "nothing hangs on it")
			}
		}
	}
	if len(v.current) == 1 {
		v.doubled = time.Time{}
		return
	}
	v.doubled = since(v.doubled, v.now)
	if !v.due(v.doubled, v.double) || !leads(v.conn.LocalID, v.conn.RemoteID) {
		return
	}
	for _, c := range v.current[:len(v.current)-1] {
		v.retire(c, keep, "a newer one does the same")
	}
}

// retire closes a CHILD_SA, with its IKE_SA if that is not the one to keep and carries nothing else.
func (v *view) retire(c childOf, keep uint32, why string) {
	if c.ike.ID != keep && len(c.ike.Children) == 1 {
		v.close(closeIKE, c.ike.ID, why)
		return
	}
	v.close(closeChild, c.ID, why)
}

func (v *view) close(kind actionKind, id uint32, why string) {
	v.do = append(v.do, action{kind: kind, tunnel: v.conn.Tunnel, peer: v.conn.Peer, id: id, why: why})
}

// due says whether d has passed since t; if not, the next step comes when it has.
func (v *view) due(t time.Time, d time.Duration) bool {
	left := d - v.now.Sub(t)
	if left > 0 {
		v.wake(left)
	}
	return left <= 0
}

func (v *view) wake(d time.Duration) { v.next = min(v.next, d) }
