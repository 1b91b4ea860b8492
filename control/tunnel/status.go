package tunnel

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Status is what is known of one tunnel.
type Status struct {
	Name     string
	Underlay int // MTU of the routes to its endpoints, the smallest, bytes; 0: not known
	Peers    []PeerStatus
}

// PeerStatus is what is known of one peer.
type PeerStatus struct {
	Name      string
	Endpoint  netip.AddrPort // wanted; where the peer roamed its device sends elsewhere. Invalid: none is known
	From      string         // the entry of the file that it comes from; "": none
	Since     time.Time      // of Endpoint; zero: from before this process
	PublicKey string         // in use, where it is not the file's first
	Heard     time.Time      // when something came from the peer last; zero: never, as far as this process knows
	// Doubt is what its being heard says of Why; "": nothing does. It takes for granted that it has a session.
	Doubt  string
	Silent time.Duration // since when an answer is waited for; 0: none is
	Why    string        // what is wrong with it; "": nothing
	// Unresolved is about a name of its endpoints that means nothing, also where another endpoint is in use; "": all do.
	Unresolved string
	Probe      *ProbeStatus // nil: not probed
}

// ProbeStatus is the outcome of the last probes.
type ProbeStatus struct {
	To     netip.Addr
	Down   bool
	Held   bool      // it was never answered, and its routes wait for that as they would take prefixes from another tunnel
	Kept   bool      // Down, and its routes are still to be withdrawn
	Since  time.Time // of Down; zero: ever since
	Sent   int       // of those remembered, 100 at most
	Lost   int
	Last   time.Duration // round trip of the last one that was answered; 0: none was
	Median time.Duration // of those that were answered; 0: none was
}

// Status returns all live tunnels, by name, with their peers in the order of the file.
func (w *Watcher) Status() []Status {
	var out []Status
	at := time.Now()
	w.locked(func(m *machine) {
		for _, name := range slices.Sorted(maps.Keys(m.tunnels)) {
			t := m.tunnels[name]
			s := Status{Name: name, Underlay: t.underlay}
			for _, p := range t.peers {
				s.Peers = append(s.Peers, m.status(p, at))
			}
			out = append(out, s)
		}
	})
	return out
}

func (m *machine) status(p *peer, at time.Time) PeerStatus {
	s := PeerStatus{Name: p.conf.Name, Endpoint: p.inUse(), Since: p.since, PublicKey: p.key, Unresolved: m.nameProblem(p)}
	if !p.guessed {
		s.Heard = p.heard
	}
	if i := p.choice.entry; i >= 0 && p.choice.endpoint.IsValid() {
		s.From = p.conf.Endpoints[i].String()
	}
	if !p.unanswered.IsZero() {
		s.Silent = at.Sub(p.unanswered)
	}
	if b := p.probe; b != nil {
		s.Probe = b.status()
		if b.held {
			s.Why = "no probe of " + b.to.String() + " was answered yet: its routes wait for the first answer, as they would take prefixes from another tunnel"
		} else if b.down {
			s.Why = "probes of " + b.to.String() + " are not answered"
			if b.refused != nil {
				s.Why += fmt.Sprintf(" (%v)", b.refused)
			} else if s.Heard.After(b.since) {
				s.Doubt = "the peer is heard, so it drops them or has another way back (a firewall, rp_filter 1, no route to this tunnel's address)"
			}
			if b.kept {
				s.Why += "; its routes are still to be withdrawn"
			}
		}
	}
	if s.Why == "" && s.Silent >= silence {
		s.Why = fmt.Sprintf("no answer for %s", s.Silent.Round(time.Second))
	}
	return s
}

func (b *probing) status() *ProbeStatus {
	s := &ProbeStatus{To: b.to, Down: b.down && !b.held, Held: b.held, Kept: b.kept, Since: b.since, Sent: min(b.count, remembered)}
	var answered []time.Duration
	for i := range s.Sent {
		rtt := b.past[(b.count-s.Sent+i)%remembered] // the oldest first
		if rtt == lost {
			s.Lost++
			continue
		}
		answered = append(answered, rtt)
		s.Last = rtt
	}
	if n := len(answered); n > 0 {
		slices.Sort(answered)
		s.Median = (answered[(n-1)/2] + answered[n/2]) / 2
	}
	return s
}

// nameProblem is about a name of a peer that does not resolve; "": all do.
func (m *machine) nameProblem(p *peer) string {
	for _, e := range p.conf.Endpoints {
		if n := m.names[e.Host]; n != nil && n.failures > 0 {
			return fmt.Sprintf("%s: %v", m.lacking(e.Host, n), n.err)
		}
	}
	return ""
}

// problems are those that the file's owner would want to know of; nil: nobody is watched. A peer without a probe may be
// away as it pleases.
func (m *machine) problems() []Problem {
	if len(m.tunnels) == 0 {
		return nil
	}
	out := []Problem{}
	for _, name := range slices.Sorted(maps.Keys(m.tunnels)) {
		for _, p := range m.tunnels[name].peers {
			if text := m.nameProblem(p); text != "" {
				out = append(out, Problem{name, p.conf.Name, NameLost, text})
			}
			if p.probe != nil && p.probe.down && !p.probe.held {
				become := "are withdrawn"
				if p.probe.kept {
					become = "are still to be withdrawn"
				}
				out = append(out, Problem{name, p.conf.Name, PeerDown, fmt.Sprintf("probes of %s are not answered: its routes %s", p.probe.to, become)})
			}
		}
	}
	return out
}
