package tunnel

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestANameIsAskedForAtTheStartAndEachMinute(t *testing.T) {
	w := newWorld(t, one(hub))
	if now := w.told["fra1"].Peers["a"]; now.Endpoint.IsValid() {
		t.Errorf("before anybody asked: %+v", now)
	}
	w.names[hub] = addresses("198.51.100.7", "2001:db8::7")
	w.run(time.Second)
	w.uses(e1)
	w.run(10 * time.Minute)
	if n := w.asked[hub]; n != 11 && n != 10 {
		t.Errorf("asked %d times in ten minutes", n)
	}
	w.changed(1)
}

func TestBothFamiliesOfANameAreTried(t *testing.T) {
	w := newWorld(t, one(hub))
	w.names[hub] = addresses("198.51.100.7", "2001:db8::9")
	w.a().talks = true
	w.answers(e3)
	w.run(silence + 4*time.Second)
	w.uses(e3)
}

func TestALocalAddressKeepsToItsFamily(t *testing.T) {
	for local, want := range map[string]string{"198.18.0.2": e1, "2001:db8::2": e3} {
		tunnel := one(hub)
		tunnel.Local = netip.AddrPortFrom(netip.MustParseAddr(local), 51820)
		w := newWorld(t, tunnel)
		w.names[hub] = addresses("2001:db8::9", "198.51.100.7")
		w.a().talks = true
		w.run(5 * time.Minute)
		w.uses(want)
		w.changed(1)
	}
}

func TestANameBeforeAnAddressIsWaitedFor(t *testing.T) {
	w := newWorld(t, one(hub, e2))
	w.uses(e2) // until it is known, as the file's first that is an address
	w.names[hub] = addresses("198.51.100.7")
	w.run(time.Second)
	w.uses(e1)

	w = newWorld(t, one(hub, e2)) // and where it does not resolve, no longer than that takes
	w.run(time.Second)
	w.names[hub] = addresses("198.51.100.7")
	w.run(10 * time.Minute)
	w.uses(e2)
	w.changed(0)
}

func TestAnotherAnswer(t *testing.T) {
	t.Run("does not move a peer that is in touch", func(t *testing.T) {
		w := newWorld(t, one(hub))
		w.names[hub] = addresses("198.51.100.7")
		w.a().talks = true
		w.answers(e1, e2)
		w.run(time.Minute)
		w.changes = nil
		w.names[hub] = addresses("198.51.100.8")
		w.run(10 * time.Minute)
		w.uses(e1)
		w.changed(0)
		w.answers(e2)
		w.run(silence + 4*time.Second)
		w.uses(e2)
	})
	t.Run("moves one that is idle", func(t *testing.T) {
		w := newWorld(t, one(hub))
		w.names[hub] = addresses("198.51.100.7")
		w.run(10 * time.Minute)
		w.names[hub] = addresses("198.51.100.8")
		w.run(resolveEvery + time.Second)
		w.uses(e2)
	})
	t.Run("is asked for when a peer falls silent, and not only each minute", func(t *testing.T) {
		w := newWorld(t, one(hub))
		w.names[hub] = addresses("198.51.100.7")
		w.a().talks = true
		w.answers(e1)
		w.run(2 * resolveEvery)
		w.answers(e2)
		w.names[hub] = addresses("198.51.100.8")
		w.run(silence + 3*time.Second)
		w.uses(e2)
	})
	t.Run("moves to another address of the same name", func(t *testing.T) {
		w := newWorld(t, one("first.example", hub))
		w.names["first.example"], w.names[hub] = addresses("192.0.2.1"), addresses("198.51.100.7")
		w.a().talks = true
		w.answers(e1, e2)
		w.run(silence + 5*time.Second)
		w.uses(e1)
		w.a().talks = false
		w.run(10 * time.Minute)
		w.names[hub] = addresses("198.51.100.8")
		w.run(resolveEvery + time.Second)
		w.uses(e2)
	})
	t.Run("in another order is the same", func(t *testing.T) {
		w := newWorld(t, one(hub))
		w.names[hub] = addresses("198.51.100.7", "198.51.100.8")
		w.run(time.Second)
		w.changes = nil
		for range 10 {
			slices.Reverse(w.names[hub])
			w.run(time.Minute)
		}
		w.uses(e1)
		w.changed(0)
	})
}

func TestNoAnswerKeepsTheLastOne(t *testing.T) {
	w := newWorld(t, one(hub))
	w.names[hub] = addresses("198.51.100.7")
	w.run(time.Second)
	w.changes, w.events = nil, nil
	delete(w.names, hub)
	w.run(10 * time.Minute)
	w.uses(e1)
	w.changed(0)
	gone := Event{NameLost, "fra1", "a", "peer a: hub.example does not resolve, so 198.51.100.7 stays: no such host"}
	if !slices.Equal(w.events, []Event{gone}) {
		t.Errorf("told %+v", w.events)
	}
	if got := w.m.problems(); len(got) != 1 || got[0].Text != "hub.example does not resolve, so 198.51.100.7 stays: no such host" {
		t.Errorf("problems %+v", got)
	}
	w.restart() // and DNS is not needed for it
	w.uses(e1)
	w.run(time.Second)
	w.uses(e1)
	w.events = nil
	w.names[hub] = addresses("198.51.100.7")
	w.run(time.Minute)
	if !slices.Equal(w.events, []Event{{NameFound, "fra1", "a", "peer a: hub.example resolves again"}}) {
		t.Errorf("told %+v", w.events)
	}
	if got := w.m.problems(); got == nil || len(got) != 0 {
		t.Errorf("problems %+v", got)
	}
	w.changed(0)
}

func TestANameThatNeverResolvedIsAskedForMoreAndMoreSlowly(t *testing.T) {
	w := newWorld(t, one(hub))
	w.run(4 * time.Second)
	if n := w.asked[hub]; n != 1 {
		t.Errorf("asked %d times in 4 s", n)
	}
	w.run(time.Hour)
	if n := w.asked[hub]; n < 60 || n > 66 {
		t.Errorf("asked %d times in an hour", n)
	}
	p := w.m.tunnels["fra1"].peers[0]
	if s := w.m.status(p, w.now); s.Unresolved != "hub.example does not resolve: no such host" || s.Endpoint.IsValid() {
		t.Errorf("%+v", s)
	}
	w.m.resolved(hub, nil, nil, w.now)
	if s := w.m.status(p, w.now); s.Unresolved != "hub.example does not resolve: hub.example has no addresses" {
		t.Errorf("%+v", s)
	}
}

func TestPeersOfOneNameAskOnce(t *testing.T) {
	tunnel := one(hub)
	b := tunnel.Peers[0]
	b.Name, b.PublicKeys = "b", []string{"key-b"}
	tunnel.Peers = append(tunnel.Peers, b)
	w := newWorld(t, tunnel)
	w.names[hub] = addresses("198.51.100.7")
	w.run(time.Second)
	if n := w.asked[hub]; n != 1 {
		t.Errorf("asked %d times", n)
	}
	for _, p := range []string{"a", "b"} {
		if got := w.told["fra1"].Peers[p].Endpoint.String(); got != e1 {
			t.Errorf("%s is at %s", p, got)
		}
	}
	w.changed(1)
}

// Everything that comes late finds nobody: the tunnel was removed while it was under way.
func TestWhatComesForATunnelThatWentIsForNobody(t *testing.T) {
	w := newWorld(t, probed(hub))
	w.names[hub] = addresses("198.51.100.7")
	w.echoes[inside] = true
	w.run(5 * time.Second)
	before := w.see()
	tag := w.pings[len(w.pings)-1].Tag
	w.apply()
	w.changes, w.events, w.pings = nil, nil, nil
	w.m.seen("wireguard", before, w.now)
	w.m.resolved(hub, addresses("198.51.100.8"), nil, w.now)
	w.m.resolved(hub, nil, errors.New("late"), w.now)
	w.m.answered(tag, w.now)
	w.m.refused(tag, errors.New("late"))
	w.m.underlaid(addresses("198.51.100.7"), map[netip.Addr]int{netip.MustParseAddr("198.51.100.7"): 1400}, false)
	w.run(5 * time.Minute)
	w.changed(0)
	if len(w.pings)+len(w.events) > 0 || w.asked[hub] != 1 || w.m.problems() != nil {
		t.Errorf("pings %v, events %v, asked %d times", w.pings, w.events, w.asked[hub])
	}
	if todo := w.m.tick(w.now.Add(time.Hour)); !todo.next.After(w.now) {
		t.Errorf("woken at %s for nothing", todo.next)
	}
}
