package bgp

import (
	"context"
	"log/slog"
	"net/netip"
)

// tap passes GoBGP's warnings and errors on, and its information as debug: it logs each step of each session, where ours
// are one line up and one line down. What it says of notifications, of attempts to connect and of the prefixes in an UPDATE it says nowhere else, and
// of a session's end nowhere as soon, so that is taken from here.
type tap struct {
	slog.Handler
	of    *sessions
	sweep *sweeper
	peer  netip.Addr // of the logger that a peer has
	tally *tally     // its; nil: nobody's
}

func (t tap) lowered(l slog.Level) slog.Level {
	if l < slog.LevelWarn {
		return min(l, slog.LevelDebug)
	}
	return l
}

func (t tap) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || t.tally != nil && (!t.tally.up.Load() || t.tally.limited.Load() || t.sweep.listens()) || t.Handler.Enabled(ctx, t.lowered(l))
}

func (t tap) Handle(ctx context.Context, r slog.Record) error {
	if sent := r.Message == "sent notification"; t.peer.IsValid() && (sent || r.Message == "received notification") {
		n, data := Notification{Time: r.Time, Sent: sent}, []byte(nil)
		r.Attrs(func(a slog.Attr) bool {
			switch a.Key {
			case "Code":
				n.Code = uint8(a.Value.Int64())
			case "Subcode":
				n.Subcode = uint8(a.Value.Int64())
			case "Communicated-Reason":
				n.Text = harmless(a.Value.String())
			case "Data":
				data, _ = a.Value.Any().([]byte)
			}
			return true
		})
		n.Meaning = meaning(n.Code, n.Subcode)
		t.of.notified(t.peer, n, data)
	}
	switch {
	case !t.peer.IsValid():
	case r.Message == "Closed an accepted connection" && t.of.insists(t.peer, r.Time):
		return nil
	case r.Message == "Peer Up":
		t.of.began(t.peer)
	case r.Message == "Peer Down":
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "Reason" {
				t.of.broke(t.peer, a.Value.String() == "graceful-restart")
			}
			return true
		})
	case r.Message == "outgoing connection established":
		t.of.dialed(t.peer, r.Time, "")
	case r.Message == "outgoing connection IO error":
		t.of.dialed(t.peer, r.Time, unheard)
	case r.Message == "failed to connect":
		r.Attrs(func(a slog.Attr) bool {
			t.of.dialed(t.peer, r.Time, a.Value.String())
			return true
		})
	case t.tally != nil && r.Message == "received update":
		t.sweep.heard(t.peer)
		r.Attrs(func(a slog.Attr) bool {
			t.tally.received(a.Value.Any(), a.Key)
			return true
		})
	}
	if r.Level = t.lowered(r.Level); !t.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return t.Handler.Handle(ctx, r)
}

func (t tap) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if addr, err := netip.ParseAddr(a.Value.String()); a.Key == "Key" && err == nil {
			t.peer, t.tally = addr, t.of.tally(addr)
		}
	}
	t.Handler = t.Handler.WithAttrs(attrs)
	return t
}

func (t tap) WithGroup(name string) slog.Handler {
	t.Handler = t.Handler.WithGroup(name)
	return t
}
