package tunnel

import (
	"net/netip"
	"slices"
	"time"

	"sluice/control/compile"
	"sluice/control/config"
)

// machine is everything that is known, and every decision. It does nothing by itself and knows no clock: each method is
// told what happened and when, and tick says what is to be done. Times must carry the monotonic clock: a wall clock that
// is set neither makes a peer silent nor a probe late.
type machine struct {
	epoch    time.Time // of the grid on which probes are sent
	followed bool      // tunnels are the live ones; before, kept and adopted have what was live
	tunnels  map[string]*tunnel
	names    map[string]*name
	probes   map[uint32]*peer // by the upper half of their tags
	lastID   uint32
	lastSlot int                      // that a new probe was given
	gathers  func(tunnel string) bool // Options.Gathers
	kept     contents
	adopted  map[string]map[string]netip.AddrPort // by tunnel and public key
	measured map[string]int                       // underlays of tunnels that are not live yet

	underlayDue time.Time
	measuring   bool
	routeless   map[netip.Addr]bool // of the addresses that were looked up last, those without a route

	version uint64    // of what Now gives
	told    uint64    // the last version whose peers that are down are withheld
	applied uint64    // the last version that was compiled and applied, or that failed to be
	why     []reason  // of the versions after those that were compiled, in their order
	calm    time.Time // before it other endpoints alone are not compiled
	unsaved bool
	events  []Event
	// problemsStale says that Report has not been told of what is wrong now.
	problemsStale bool
}

// reason is why there is a version.
type reason struct {
	version  uint64
	text     string
	pressing bool // more than another endpoint
}

// tunnel is a live one.
type tunnel struct {
	conf     config.Tunnel
	underlay int // bytes; 0: not known
	peers    []*peer
	begun    int // probes that began as the tunnel became this one
}

// peer is a peer of a live tunnel.
type peer struct {
	of   *tunnel
	conf config.Peer

	choice  choice
	since   time.Time // of choice; zero: before this process
	version uint64    // of the machine when choice was made
	tries   int       // endpoints that were left since it was last heard
	ways    int       // endpoints that there were to choose from then
	inVain  int       // of tries, the last in a row whose session was up
	retry   time.Time // not looked at before
	touch
	key   string // that it uses; "": the file's first
	probe *probing
}

// work is what a tick wants done.
type work struct {
	resolve  []string
	ping     []Ping       // those of a tunnel are neighbours
	underlay []netip.Addr // nil: not due
	next     time.Time    // of the next tick; zero: nothing is ever due
}

func newMachine() *machine {
	return &machine{tunnels: map[string]*tunnel{}, names: map[string]*name{}, probes: map[uint32]*peer{}, measured: map[string]int{}}
}

// follow makes tunnels the live ones. Of a peer that stays, what was found out stays where it fits what is said of it now.
// It gives the same as now gave for them, so nothing has to be compiled for it. It says whether they are the same peers at the same
// places as before, and none with a session.
func (m *machine) follow(tunnels []config.Tunnel, at time.Time) (same bool) {
	if m.epoch.IsZero() {
		m.epoch = at
	}
	live, probes, last := map[string]*tunnel{}, map[uint32]*peer{}, lastMetrics(tunnels)
	same = m.followed && len(tunnels) == len(m.tunnels)
	for _, conf := range tunnels {
		old := m.former(conf).byName()
		t := &tunnel{conf: conf, underlay: m.underlayOf(conf)}
		for _, pc := range conf.Peers {
			before := old[pc.Name]
			p := &peer{of: t, conf: pc}
			if before != nil {
				*p = *before
				p.of, p.conf = t, pc
			}
			if p.choice = m.fit(conf, pc, before); before == nil || p.choice != before.choice {
				p.since, p.tries, p.inVain = time.Time{}, 0, 0
			}
			p.key = m.keyOf(conf, pc, before)
			p.probe = m.probing(t, pc, before, last, at)
			if p.probe != nil {
				probes[p.probe.id] = p
			}
			t.peers = append(t.peers, p)
		}
		live[conf.Name] = t
		same = same && t.placedAs(m.former(conf))
	}
	m.tunnels, m.probes, m.followed = live, probes, true
	m.followNames(at)
	m.kept, m.adopted, m.measured = contents{}, nil, map[string]int{}
	if m.unsaved, m.problemsStale = true, true; !same {
		m.underlayDue = at
	}
	return same && !slices.ContainsFunc(tunnels, func(t config.Tunnel) bool { return t.Type != config.TypeWireGuard })
}

// former is the live tunnel of that name and type, or nil.
func (m *machine) former(conf config.Tunnel) *tunnel {
	if t := m.tunnels[conf.Name]; t != nil && t.conf.Type == conf.Type {
		return t
	}
	return nil
}

// byName are the peers of a tunnel, of which there may be none.
func (t *tunnel) byName() map[string]*peer {
	if t == nil {
		return nil
	}
	out := make(map[string]*peer, len(t.peers))
	for _, p := range t.peers {
		out[p.conf.Name] = p
	}
	return out
}

// now is compile's Runtime for tunnels that may be live, or a candidate's.
func (m *machine) now(tunnels []config.Tunnel) map[string]compile.TunnelNow {
	out, last := make(map[string]compile.TunnelNow, len(tunnels)), lastMetrics(tunnels)
	for _, conf := range tunnels {
		before := m.former(conf).byName()
		t := compile.TunnelNow{Underlay: m.underlayOf(conf), Peers: make(map[string]compile.PeerNow, len(conf.Peers))}
		for _, pc := range conf.Peers {
			b := before[pc.Name]
			t.Peers[pc.Name] = compile.PeerNow{
				Endpoint: m.fit(conf, pc, b).endpoint, PublicKey: m.keyOf(conf, pc, b), Down: m.downOf(conf, pc, b, last),
			}
		}
		out[conf.Name] = t
	}
	return out
}

// underlayOf is what is known of a tunnel's underlay.
func (m *machine) underlayOf(conf config.Tunnel) int {
	if old := m.former(conf); old != nil && old.underlay != 0 {
		return old.underlay
	}
	if n := m.measured[conf.Name]; n != 0 {
		return n
	}
	return m.kept.Tunnels[conf.Name].Underlay
}

// change says that Now gives something new.
func (m *machine) change(e Event) {
	m.renew("tunnel "+e.Tunnel+": "+e.Text, e.Kind != EndpointChanged)
	m.unsaved = true
	m.events = append(m.events, e)
}

// renew makes a version.
func (m *machine) renew(why string, pressing bool) {
	m.version++
	m.why = append(m.why, reason{m.version, why, pressing})
}

// untold is where the reasons of versions begin that are not withheld yet.
func (m *machine) untold() int {
	n := slices.IndexFunc(m.why, func(r reason) bool { return r.version > m.told })
	if n < 0 {
		return len(m.why)
	}
	return n
}

// pause is how long what is new gathers before it is compiled. Peers that are gone are many at once, and seeking them must
// not keep the engine busy; whatever else changed goes at once.
func (m *machine) pause(at time.Time) time.Duration {
	pressing := slices.ContainsFunc(m.why[:m.untold()], func(r reason) bool { return r.pressing })
	if pressing || m.told <= m.applied {
		return 0
	}
	return max(0, m.calm.Sub(at))
}

// compiling returns what is to be compiled now: the last version that is withheld. Where peers turn all the time there is a newer
// one, and Now gives that; but a peer that came back in it is withheld still, so it is compiled again once it is not.
func (m *machine) compiling() (version uint64, why []string) {
	n := m.untold()
	for _, r := range m.why[:n] {
		why = append(why, r.text)
	}
	m.why = slices.Clone(m.why[n:])
	return m.told, why
}

// compiled says that a version is applied, or failed to be, and how long that took. Only now do devices send to the
// endpoints that were taken, so only now their time begins. Where a peer roamed its device sends already.
func (m *machine) compiled(version uint64, took time.Duration, at time.Time) {
	for _, t := range m.tunnels {
		for _, p := range t.peers {
			if p.version > m.applied && p.version <= version && p.choice.entry >= 0 {
				p.since, p.watched, p.sent, p.unanswered = at, at, 0, time.Time{}
			}
		}
	}
	m.applied, m.calm = version, at.Add(min(calmShare*took, calmMax))
}

// tick is called when next says so, and after anything came from outside.
func (m *machine) tick(at time.Time) work {
	var w work
	for _, t := range m.tunnels {
		for _, p := range t.peers {
			m.lookForRoute(p, at)
			m.judge(p, at)
			if p.version <= m.applied { // else it is looked at once it is
				w.soon(p.deadline())
			}
			if p.probe != nil {
				m.runProbe(p, &w, at)
			}
		}
	}
	m.runNames(&w, at)
	if !m.measuring && m.followed && !at.Before(m.underlayDue) {
		if w.underlay = m.underlayAddresses(); len(w.underlay) > 0 {
			m.measuring = true
		}
		m.underlayDue = at.Add(underlayEvery)
	}
	if !m.measuring && m.followed {
		w.soon(m.underlayDue)
	}
	return w
}

// soon brings the next tick forward.
func (w *work) soon(at time.Time) {
	if !at.IsZero() && (w.next.IsZero() || at.Before(w.next)) {
		w.next = at
	}
}
