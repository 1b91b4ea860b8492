package tunnel

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"sluice/control/config"
	"sluice/netdump"
	"sluice/plural"
)

const (
	// grid is what the times of probes are rounded to: however many peers there are, they wake the daemon 20 times a second at most.
	grid = 50 * time.Millisecond
	// together is how many probes of a tunnel leave at once where its process sends them: it is woken for all of them, not for each.
	together = 128
	// settling is how long a peer that never answered is given before it is down: a first handshake takes a while.
	settling = 15 * time.Second
	// remembered is how many probes are kept for loss and round trip.
	remembered = 100
)

// probing is the probing of one peer. A probe whose answer is not there when the next one is due is lost.
type probing struct {
	id      uint32 // in the upper half of its tags
	to      netip.Addr
	health  config.Health
	next    time.Time
	seq     uint32 // of the last probe, the lower half of its tag
	sent    time.Time
	waiting bool
	refused error // why the last probe could not be sent

	down     bool
	since    time.Time // of down
	version  uint64    // of the machine that down came with
	kept     bool      // down, and nobody has withdrawn its routes yet
	run      int       // probes in a row that speak against down
	answered bool      // ever
	held     bool      // down, as it was never answered and would take prefixes from another tunnel; ends by settling
	begun    time.Time

	past  [remembered]time.Duration // round trips; negative: lost
	count int                       // of all; past is a ring
}

const lost time.Duration = -1

// probing is the state of a peer's probe, nil where it has none. The one before goes on where the address is the same.
func (m *machine) probing(t *tunnel, pc config.Peer, before *peer, last map[netip.Prefix]int, at time.Time) *probing {
	conf := t.conf
	if conf.Health == nil || !pc.Probe.IsValid() {
		return nil
	}
	if before != nil && before.probe != nil && before.probe.to == pc.Probe {
		before.probe.health = *conf.Health
		return before.probe
	}
	m.lastID++
	b := &probing{id: m.lastID, to: pc.Probe, health: *conf.Health, begun: at, down: m.downOf(conf, pc, before, last)}
	b.held = b.down && m.kept.Tunnels[conf.Name].Peers[pc.Name].Probe != pc.Probe
	if b.down {
		b.since = at
	} else if before == nil {
		b.answered = m.kept.Tunnels[conf.Name].Peers[pc.Name].Probe == pc.Probe // it was up before a restart
	}
	// Spread over the interval: 13 and 20 have no common divisor.
	spread := b.health.Interval
	if b.held {
		spread = min(spread, time.Second) // traffic may wait for the answer
	}
	b.next = m.onGrid(at.Add(spread * time.Duration(m.slot(t)*13%20) / 20))
	return b
}

// slot counts up from one new probe to the next, but those of a tunnel share one where they leave together.
func (m *machine) slot(t *tunnel) int {
	if t.begun%together == 0 || m.gathers == nil || !m.gathers(t.conf.Name) {
		m.lastSlot++
	}
	t.begun++
	return m.lastSlot
}

// downOf says whether a peer is down, as far as is known.
func (m *machine) downOf(conf config.Tunnel, pc config.Peer, before *peer, last map[netip.Prefix]int) bool {
	switch {
	case conf.Health == nil || !pc.Probe.IsValid():
		return false
	case before != nil:
		return before.probe != nil && before.probe.to == pc.Probe && before.probe.down
	}
	kept := m.kept.Tunnels[conf.Name].Peers[pc.Name]
	if kept.Probe == pc.Probe {
		return kept.Down
	}
	return m.holds(conf, pc, last)
}

// holds says whether a peer that is new waits for its first answer: it must not take traffic from another tunnel that may
// work. One whose device shook hands lately is new to this process alone.
func (m *machine) holds(conf config.Tunnel, pc config.Peer, last map[netip.Prefix]int) bool {
	if !pc.Routes || m.adopted[conf.Name][m.keyInUse(conf, pc, nil)].IsValid() {
		return false
	}
	return slices.ContainsFunc(pc.Prefixes, func(p netip.Prefix) bool { return netdump.Metric(p, pc.Metric) < last[p] })
}

// lastMetrics are the highest of the routes to each prefix. Peers have different ones where they share a prefix.
func lastMetrics(tunnels []config.Tunnel) map[netip.Prefix]int {
	last := map[netip.Prefix]int{}
	for _, t := range tunnels {
		for _, pc := range t.Peers {
			for _, p := range pc.Prefixes {
				if pc.Routes {
					last[p] = max(last[p], netdump.Metric(p, pc.Metric))
				}
			}
		}
	}
	return last
}

// onGrid rounds up.
func (m *machine) onGrid(at time.Time) time.Time {
	since := at.Sub(m.epoch) // by the monotonic clock, which Time.Truncate would drop
	return m.epoch.Add((since + grid - 1) / grid * grid)
}

func (m *machine) runProbe(p *peer, w *work, at time.Time) {
	b := p.probe
	if at.Before(b.next) {
		w.soon(b.next)
		return
	}
	// Where we are late ourselves, the answer may be waiting for us: such a probe proves nothing.
	if late := at.Sub(b.next); b.waiting && late <= b.health.Interval/2 {
		m.probed(p, lost, at)
	}
	b.seq++
	b.sent, b.waiting = at, true
	w.ping = append(w.ping, Ping{p.of.conf.Name, b.to, uint64(b.id)<<32 | uint64(b.seq)})
	if b.next = b.next.Add(b.health.Interval); !b.next.After(at) {
		b.next = m.onGrid(at.Add(b.health.Interval))
	}
	w.soon(b.next)
}

// answered takes an answer. One that comes after its time is none.
func (m *machine) answered(tag uint64, at time.Time) {
	p := m.probes[uint32(tag>>32)]
	if p == nil || !p.probe.waiting || p.probe.seq != uint32(tag) {
		return
	}
	m.probed(p, max(0, at.Sub(p.probe.sent)), at)
}

// refused notes that a probe could not be sent. It counts as lost when its time is over: the device may come back.
func (m *machine) refused(tag uint64, err error) {
	if p := m.probes[uint32(tag>>32)]; p != nil {
		p.probe.refused = err
	}
}

// inRow says what the probes in a row were; the next word is their fate.
func (b *probing) inRow() string {
	return fmt.Sprintf("%s of %s in a row %s", plural.Of(b.run, "probe", "probes"), b.to, plural.Word(b.run, "was", "were"))
}

// probed judges: DownAfter losses in a row take a peer down, UpAfter answers in a row bring it back. One that is held waits for
// one answer, and is down like any other when it did not come in time.
func (m *machine) probed(p *peer, rtt time.Duration, at time.Time) {
	b := p.probe
	b.waiting = false
	b.past[b.count%remembered] = rtt
	b.count++
	if rtt != lost {
		if !b.answered && !b.down { // nobody doubted it, and nobody knew
			m.events = append(m.events, Event{PeerUp, p.of.conf.Name, p.conf.Name, fmt.Sprintf("peer %s is up: the first probe of %s was answered", p.conf.Name, b.to)})
		}
		b.answered, b.refused = true, nil
		p.tries, p.inVain = 0, 0
	}
	if (rtt == lost) == b.down {
		if b.run = 0; b.held && at.Sub(b.begun) >= settling {
			m.giveUp(p, at)
		}
		return
	}
	b.run++
	switch {
	case b.held:
		m.turn(p, false, at, fmt.Sprintf("the first probe of %s was answered", b.to))
	case b.down && b.run >= b.health.UpAfter:
		m.turn(p, false, at, b.inRow()+" answered")
	case !b.down && b.run >= b.health.DownAfter && (b.answered || at.Sub(b.begun) >= settling):
		why := b.inRow() + " lost"
		if b.refused != nil {
			why += fmt.Sprintf(" (%v)", b.refused)
		}
		m.turn(p, true, at, why)
	}
}

func (m *machine) turn(p *peer, down bool, at time.Time, why string) {
	p.probe.down, p.probe.since, p.probe.run, p.probe.held = down, at, 0, false
	kind, word := PeerUp, "up"
	if down {
		kind, word = PeerDown, "down"
	}
	m.problemsStale = true
	m.change(Event{kind, p.of.conf.Name, p.conf.Name, fmt.Sprintf("peer %s is %s: %s", p.conf.Name, word, why)})
	p.probe.version, p.probe.kept = m.version, down
}

// giveUp tells of a peer that was held for as long as another one may take until it is down. Its routes stay away, so there is
// nothing to compile.
func (m *machine) giveUp(p *peer, at time.Time) {
	p.probe.held, p.probe.since = false, at
	m.problemsStale, m.unsaved = true, true
	m.events = append(m.events, Event{PeerDown, p.of.conf.Name, p.conf.Name,
		fmt.Sprintf("peer %s is down: no probe of %s was ever answered", p.conf.Name, p.probe.to)})
}

// down are the live peers that are, in the order of their tunnels' names and of the file.
func (m *machine) down() []Down {
	var out []Down
	for _, name := range slices.Sorted(maps.Keys(m.tunnels)) {
		conf := m.tunnels[name].conf
		for _, p := range m.tunnels[name].peers {
			if p.probe != nil && p.probe.down {
				out = append(out, Down{Tunnel: name, Type: conf.Type, Peer: p.conf.Name, PublicKeys: p.conf.PublicKeys})
			}
		}
	}
	return out
}

// withdrawn says that the routes are gone of the peers that were down as of a version, and whether that is news of any.
func (m *machine) withdrawn(version uint64) (news bool) {
	for _, p := range m.probes {
		if p.probe.kept && p.probe.version <= version {
			p.probe.kept, m.problemsStale, news = false, true, true
		}
	}
	return news
}

// withheld says that the peers which were down as of a version are withheld, and whether one of before is no more. What was
// compiled while it was may lack its routes: where nothing new would be compiled, because it is not probed any more, this is.
func (m *machine) withheld(version uint64, back bool) {
	if back && version == m.told && version == m.version {
		m.renew("peers that were down are not probed any more", true)
		version = m.version
	}
	m.told = version
}
