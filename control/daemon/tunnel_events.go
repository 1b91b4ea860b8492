package daemon

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"sluice/control/api"
	"sluice/control/engine"
	"sluice/control/tunnel"
	"sluice/crypto/ike"
	"sluice/crypto/ipsec"
	"sluice/plural"
)

// epochs notices that keys of static keying have changed: the driver changes them by itself, and who looks at its status
// tells. The first look at a peer is no change.
type epochs struct {
	mu   sync.Mutex
	seen map[epochPeer]epochPair
}

type epochPeer struct{ tunnel, peer string }

// epochPair is in which epoch is sent, and the highest that was heard; 0: in none yet.
type epochPair struct{ sent, heard uint64 }

// look takes the status of tunnels, all or some.
func (e *epochs) look(list []ipsec.TunnelStatus, tell func(tunnel.Event)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen == nil {
		e.seen = map[epochPeer]epochPair{}
	}
	for _, t := range list {
		if t.Keying != ipsec.Static {
			continue
		}
		for _, p := range t.Peers {
			id, now := epochPeer{t.Name, p.Name}, epochPair{p.Epoch, p.PeerEpoch}
			was := e.seen[id]
			e.seen[id] = now
			if was.sent != 0 && now.sent > was.sent {
				tell(tunnel.Event{Kind: tunnel.EpochBegan, Tunnel: t.Name, Peer: p.Name,
					Text: fmt.Sprintf("peer %s is sent to in epoch %d, before in %d", p.Name, now.sent, was.sent)})
			}
			if was.heard != 0 && now.heard > was.heard {
				tell(tunnel.Event{Kind: tunnel.EpochBegan, Tunnel: t.Name, Peer: p.Name,
					Text: fmt.Sprintf("peer %s sends in epoch %d, before in %d", p.Name, now.heard, was.heard)})
			}
		}
	}
}

// charonNotice is an event of charon's supervision as everybody hears it.
func charonNotice(e ipsec.Event) (out tunnel.Event, told bool) {
	out = tunnel.Event{Tunnel: e.Tunnel, Peer: e.Peer}
	switch e.Kind {
	case ike.CharonGone:
		out.Kind, out.Text = tunnel.CharonGone, fmt.Sprint(e.Err)
	case ike.CharonBack:
		out.Kind, out.Text = tunnel.CharonBack, "charon answers, and has all that was loaded"
	case ike.PeerUp:
		out.Kind, out.Text = tunnel.SessionChanged, fmt.Sprintf("peer %s has a session", e.Peer)
	case ike.PeerDown:
		out.Kind, out.Text = tunnel.SessionChanged, fmt.Sprintf("peer %s has no session any more", e.Peer)
	default:
		return out, false
	}
	return out, true
}

func (d *Daemon) tunnelNotice(e tunnel.Event) {
	d.hub.publish(api.Event{Type: api.EventTunnel, Tunnel: &e})
}

// reportTunnels keeps the condition. A peer that is not down need not have answered: it may be new, or not probed.
func (d *Daemon) reportTunnels(problems []tunnel.Problem) {
	switch {
	case problems == nil:
		d.engine.SetCondition(engine.ConditionTunnels, "", "", "")
	case len(problems) == 0:
		d.engine.SetCondition(engine.ConditionTunnels, engine.False, "NoneDown", "")
	default:
		reason := "Unresolved"
		if slices.ContainsFunc(problems, func(p tunnel.Problem) bool { return p.Kind == tunnel.PeerDown }) {
			reason = "Unanswered"
		}
		d.engine.SetCondition(engine.ConditionTunnels, engine.True, reason, troubleText(problems))
	}
}

// troubleText says how many peers are in trouble and names a few: many peers of a hub are down at once when it is the hub's own
// uplink. Several problems of one peer, which follow each other, are one entry.
func troubleText(problems []tunnel.Problem) string {
	var texts []string
	for i, p := range problems {
		if i > 0 && p.Tunnel == problems[i-1].Tunnel && p.Peer == problems[i-1].Peer {
			texts[len(texts)-1] += ", and " + p.Text
			continue
		}
		texts = append(texts, fmt.Sprintf("tunnel %s to %s: %s", p.Tunnel, p.Peer, p.Text))
	}
	n := len(texts)
	if more := n - api.MaxTroubles; more > 0 {
		texts = append(texts[:api.MaxTroubles], fmt.Sprintf("and %d more (sluice show tunnels)", more))
	}
	return plural.Of(n, "peer is", "peers are") + " in trouble: " + strings.Join(texts, "; ")
}
