package tunnel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/control/config"
)

func TestAPeerIsFoundAtTheNextEndpointAndStaysThere(t *testing.T) {
	w := newWorld(t, one(e1, e2))
	w.a().talks = true
	w.answers(e1, e2)
	w.run(time.Minute)
	w.uses(e1)
	w.changed(0)
	w.answers(e2)
	w.run(silence - time.Second)
	w.uses(e1)
	w.run(4 * time.Second)
	w.uses(e2)
	w.changed(1)
	w.answers(e1, e2)
	w.run(10 * time.Minute)
	w.uses(e2) // the first one answers again, and this one never failed
	w.changed(0)
	w.answers(e1)
	w.run(silence + 3*time.Second)
	w.uses(e1)
	w.changed(1)
	want := []Event{
		{EndpointChanged, "fra1", "a", "peer a: endpoint 198.51.100.8:51820 instead of 198.51.100.7:51820: no answer for 15s"},
		{EndpointChanged, "fra1", "a", "peer a: endpoint 198.51.100.7:51820 instead of 198.51.100.8:51820: no answer for 15s"},
	}
	if len(w.events) != 2 || w.events[0] != want[0] || w.events[1] != want[1] {
		t.Errorf("told %+v", w.events)
	}
}

// A device does not count what it could not send, so nobody seems to owe it an answer.
func TestAnEndpointWithoutARouteIsLeft(t *testing.T) {
	fixed := func(c config.Tunnel) config.Tunnel { c.MTU = 1400; return c }
	for _, c := range []struct {
		name    string
		tunnel  config.Tunnel
		talks   bool
		blind   bool // route lookups say nothing
		lost    []string
		back    time.Duration // when the routes are there again; 0: never
		want    string
		changes int
	}{
		{"with traffic", one(e1, e3), true, false, []string{e1}, 0, e3, 1},
		{"with a fixed mtu", fixed(one(e1, e3)), true, false, []string{e1}, 0, e3, 1},
		{"without traffic", one(e1, e3), false, false, []string{e1}, 0, e3, 1},
		{"for one that has a route", one(e1, e2, e3), true, false, []string{e1, e2}, 0, e3, 1},
		{"when its probes fail", probed(e1, e3), true, true, []string{e1}, 0, e3, 3}, // down, e3, up
		{"but not within the time of an answer", fixed(one(e1, e3)), true, false, []string{e1}, silence - 3*time.Second, e1, 0},
		{"but not for another one without", one(e1, e3), true, false, []string{e1, e3}, 0, e1, 0},
		{"but not if it is the only one", one(e1), true, false, []string{e1}, 0, e1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.tunnel)
			w.a().talks = c.talks
			w.answers(e1, e2, e3)
			w.echoes[inside] = true
			w.run(time.Minute)
			for _, e := range c.lost {
				w.noRoute[netip.MustParseAddrPort(e).Addr()] = true
			}
			if w.m.underlayDue = w.now; c.blind { // WatchRoutes tells
				w.m.underlayDue = w.now.Add(time.Hour)
			}
			w.echoes[inside] = false
			if c.back > 0 {
				w.run(c.back)
				clear(w.noRoute)
				w.m.underlayDue = w.now
			}
			w.run(silence + 5*time.Second)
			w.uses(c.want)
			w.echoes[inside] = true
			w.run(5 * time.Minute)
			w.uses(c.want)
			w.changed(c.changes)
		})
	}
}

// Nothing is held against an endpoint for the time in which there was no route at all.
func TestTheFirstRouteThatIsBackIsTaken(t *testing.T) {
	w := newWorld(t, one(e1, e3))
	w.a().talks = true
	w.answers(e1, e3)
	w.run(time.Minute)
	w.noRoute[netip.MustParseAddrPort(e1).Addr()], w.noRoute[netip.MustParseAddrPort(e3).Addr()] = true, true
	w.run(time.Hour)
	w.changed(0)
	delete(w.noRoute, netip.MustParseAddrPort(e3).Addr())
	w.m.underlayDue = w.now
	w.run(silence + 2*time.Second)
	w.uses(e3)
	w.changed(1)
	if why := w.events[0].Text; !strings.HasSuffix(why, "no route to 198.51.100.7") {
		t.Error(why)
	}
}

func TestEndpointsAreTriedRoundAndRoundAndMoreAndMoreSlowly(t *testing.T) {
	w := newWorld(t, one(e1, e2, e3))
	w.a().talks = true
	var order []string
	for range 3 {
		w.run(silence + 2*time.Second)
		order = append(order, w.a().endpoint.String())
	}
	if got := strings.Join(order, " "); got != e2+" "+e3+" "+e1 {
		t.Errorf("tried %s", got)
	}
	w.changes = nil
	w.run(time.Hour)
	if n := len(w.changes); n < 12 || n > 18 {
		t.Errorf("%d compilations in an hour for one peer that is gone, want three each for 30 s, 1, 2, 4, 8 and 16 min", n)
	}
	w.answers(e2)
	w.run(48 * time.Minute)
	w.uses(e2)
	w.answers(e3) // once it was heard, nothing is held against it
	w.run(silence + 3*time.Second)
	w.uses(e3)
}

// Silence is the lack of an answer: who asks for nothing is not left.
func TestWhoIsAskedForNothingIsNotSilent(t *testing.T) {
	for name, keepalive := range map[string]time.Duration{
		"without any traffic": 0, "with keepalives each 25 s": 25 * time.Second, "with keepalives each second": time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			tunnel := one(e1, e2)
			tunnel.Peers[0].Keepalive = keepalive
			w := newWorld(t, tunnel)
			w.run(20 * time.Minute)
			w.uses(e1)
			w.changed(0)
			w.a().talks = true
			w.run(silence + 3*time.Second)
			w.uses(e2)
		})
	}
}

func TestAPeerWithoutEndpointsIsLeftToComeToUs(t *testing.T) {
	w := newWorld(t, one())
	w.a().talks, w.a().endpoint = true, netip.MustParseAddrPort("192.0.2.9:1234")
	w.run(5 * time.Minute)
	w.changed(0)
	w.uses("192.0.2.9:1234")
	if now := w.m.now(w.tunnels)["fra1"].Peers["a"]; now.Endpoint.IsValid() {
		t.Errorf("%+v", now)
	}
}

const roamed = "192.0.2.9:1234"

func TestRoamingIsNotUndone(t *testing.T) {
	for name, list := range map[string][]string{"with one endpoint": {e1}, "with two": {e1, e2}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, one(list...))
			w.a().talks = true
			w.answers(e1, roamed)
			w.run(time.Minute)
			w.a().endpoint = netip.MustParseAddrPort(roamed)
			w.run(10 * time.Minute)
			w.uses(roamed)
			w.changed(0)
			w.restart() // the driver has forgotten what it wrote
			w.a().written = w.a().endpoint
			w.run(10 * time.Minute)
			w.uses(roamed)
			w.changed(0)
			w.apply(w.tunnels...) // nothing changed
			w.run(time.Minute)
			w.uses(roamed)
			w.answers(e1)
			w.run(silence + 4*time.Second)
			w.uses(e1)
		})
	}
}

// A driver writes an endpoint only where another one is wanted.
func TestAPeerThatRoamedAwayAndIsGoneIsSoughtAtItsOnlyEndpoint(t *testing.T) {
	w := newWorld(t, one(e1))
	w.a().talks = true
	w.answers(e1, roamed)
	w.run(time.Minute)
	w.a().endpoint = netip.MustParseAddrPort(roamed)
	w.run(time.Minute)
	w.answers(e1)
	w.run(silence + 4*time.Second)
	w.uses(e1)
	w.changed(2)
	w.run(time.Hour)
	w.changed(0)
}

func TestAnOnlyEndpointThatIsSilentIsLeftInPeace(t *testing.T) {
	w := newWorld(t, one(e1))
	w.a().talks = true
	w.run(time.Hour)
	w.changed(0)
	s := w.m.status(w.m.tunnels["fra1"].peers[0], w.now)
	if s.Silent < 59*time.Minute || !strings.HasPrefix(s.Why, "no answer for 59m") {
		t.Errorf("%+v", s)
	}
}

func TestAFileThatSaysOtherwiseKeepsWhatStillFits(t *testing.T) {
	failedOver := func(t *testing.T) *world {
		w := newWorld(t, one(e1, e2))
		w.a().talks = true
		w.answers(e2, e3)
		w.run(silence + 3*time.Second)
		w.uses(e2)
		w.changes = nil
		return w
	}
	for _, c := range []struct {
		name string
		list []string
		want string
	}{
		{"the same", []string{e1, e2}, e2},
		{"another order", []string{e2, e1}, e2},
		{"one more", []string{e1, e2, e3}, e2},
		{"without the one in use", []string{e3, e1}, e3},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := failedOver(t)
			w.apply(one(c.list...))
			w.uses(c.want)
			w.run(time.Minute)
			w.uses(c.want)
			w.changed(0) // it was compiled right at once
		})
	}
	t.Run("another list than that of a peer that roamed", func(t *testing.T) {
		w := failedOver(t)
		w.answers(roamed, e1, e3)
		w.a().endpoint = netip.MustParseAddrPort(roamed)
		w.run(time.Minute)
		w.apply(one(e3, e1))
		w.uses(e3)
	})
	t.Run("another type of tunnel", func(t *testing.T) {
		w := failedOver(t)
		other := one(e1, e2)
		other.Type = config.TypeIPsec
		w.apply(other)
		if got := w.told["fra1"].Peers["a"].Endpoint.String(); got != e1 {
			t.Errorf("uses %s", got)
		}
	})
}

func TestARestartWhileFailedOverChangesNothing(t *testing.T) {
	for name, gone := range map[string]bool{"and its device goes on": false, "and its device is gone": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, one(e1, e2))
			w.a().talks = true
			w.answers(e2)
			w.run(silence + 3*time.Second)
			w.changes = nil
			if gone {
				*w.a() = deviceOfPeer{talks: true}
			}
			w.restart()
			w.uses(e2)
			w.run(time.Minute)
			w.uses(e2)
			w.changed(0)
		})
	}
}

// What a device says of the past is on the wall clock, which may have been set back since.
func TestAHandshakeOfTheFutureIsOne(t *testing.T) {
	w := newWorld(t, one(e1, e2))
	w.a().handshake = w.now.Add(time.Hour)
	w.run(2 * time.Second)
	if p := w.m.tunnels["fra1"].peers[0]; !p.inTouch(w.now) {
		t.Error("the peer is out of touch")
	} else if s := w.m.status(p, w.now); !s.Heard.IsZero() {
		t.Errorf("it is said to be heard at %s, which nobody knows", s.Heard)
	}
	w.a().handshake = time.Time{}
	w.run(2 * time.Second)
	w.changed(0)
}

func TestADeviceThatBeginsAnewIsGivenItsTime(t *testing.T) {
	w := newWorld(t, one(e1, e2))
	w.a().talks = true
	w.answers(e1)
	w.run(time.Minute)
	w.answers()
	w.run(10 * time.Second)
	w.a().rx, w.a().tx, w.a().handshake = 0, 0, time.Time{}
	w.run(silence - time.Second)
	w.uses(e1)
	w.run(4 * time.Second)
	w.uses(e2)
}

// IPsec has a key daemon to say that there is no session, or nobody but the probe.
func TestAnIPsecPeerMovesOnWithoutASession(t *testing.T) {
	tunnel := one(e1, e2)
	tunnel.Type = config.TypeIPsec
	w := newWorld(t, tunnel)
	tell := func(s Session, d time.Duration) {
		for end := w.now.Add(d); w.now.Before(end); {
			w.m.seen(config.TypeIPsec, []Seen{{Tunnel: "fra1", Peer: "a", Session: s}}, w.now)
			w.run(time.Second)
		}
	}
	tell(SessionUp, time.Minute)
	tell(SessionDown, silence-2*time.Second)
	tell(SessionUp, 2*time.Second) // DPD was too quick
	tell(SessionDown, silence-2*time.Second)
	w.uses(e1)
	tell(SessionDown, 4*time.Second)
	w.uses(e2)
	tell(SessionUp, 10*time.Minute)
	w.uses(e2)
	w.changed(1)
}

func TestAnIPsecPeerWithStaticKeysMovesOnWhenItsProbesFail(t *testing.T) {
	tunnel := probed(e1, e2)
	tunnel.Type = config.TypeIPsec
	w := newWorld(t, tunnel)
	w.echoes[inside] = true
	w.run(time.Minute)
	w.echoes[inside] = false
	w.run(10 * time.Second)
	w.down(true)
	w.uses(e1)
	w.run(silence)
	w.uses(e2)
}

func TestASessionThatIsUpIsNoReasonToGoRoundForEver(t *testing.T) {
	up, down := SessionUp, SessionDown
	for _, c := range []struct {
		name     string
		sessions map[string]Session // by endpoint in use
		want     []string           // endpoints, each time it was left
		most     int                // further changes in an hour
	}{
		{"with sessions at both: one round, then it stays", map[string]Session{e1: up, e2: up}, []string{e2, e1}, 0},
		{"with a session at one: ever more slowly", map[string]Session{e1: up, e2: down}, []string{e2, e1, e2, e1}, 12},
		{"with none at any: ever more slowly", map[string]Session{e1: down, e2: down}, []string{e2, e1, e2, e1}, 12},
	} {
		t.Run(c.name, func(t *testing.T) {
			tunnel := probed(e1, e2)
			tunnel.Type = config.TypeIPsec
			w := newWorld(t, tunnel)
			run := func(d time.Duration) (order []string) {
				for end := w.now.Add(d); w.now.Before(end); {
					used := w.a().endpoint.String()
					w.m.seen(config.TypeIPsec, []Seen{{Tunnel: "fra1", Peer: "a", Session: c.sessions[used]}}, w.now)
					w.run(time.Second)
					if now := w.a().endpoint.String(); now != used {
						order = append(order, now)
					}
				}
				return order
			}
			if got := run(2 * time.Minute); !slices.Equal(got, c.want) {
				t.Errorf("went to %s, want %s", got, c.want)
			}
			if got := run(time.Hour); len(got) > c.most {
				t.Errorf("left endpoints %d times in an hour, want %d at most", len(got), c.most)
			}
			w.echoes[inside] = true // nothing is held against it afterwards
			run(10 * time.Second)
			used := w.a().endpoint.String()
			w.echoes[inside], c.sessions = false, map[string]Session{e1: up, e2: up}
			run(silence + 6*time.Second)
			if now := w.a().endpoint.String(); now == used {
				t.Errorf("stays at %s", now)
			}
		})
	}
}

func TestSeekingManyPeersLeavesTheEngineAlone(t *testing.T) {
	tunnel := probed(e1)
	for i := range 100 {
		name := fmt.Sprintf("gone%d", i)
		tunnel.Peers = append(tunnel.Peers, config.Peer{Name: name, Endpoints: endpoints(e1, e2), PublicKeys: []string{name}})
	}
	for _, c := range []struct {
		takes time.Duration
		most  int // compilations in ten minutes
	}{
		{10 * time.Millisecond, 600}, {200 * time.Millisecond, 150}, {time.Minute, 61},
	} {
		t.Run(c.takes.String(), func(t *testing.T) {
			w := newWorld(t, tunnel)
			w.takes, w.echoes[inside] = c.takes, true
			i := 0
			for name, d := range w.devices {
				if i++; name != "fra1/a" { // that they are silent at other times each
					d.talks, d.next = true, w.now.Add(time.Duration(i)*time.Second)
				}
			}
			w.run(10 * time.Minute)
			if n := len(w.changes); n > c.most {
				t.Errorf("%d compilations, want %d at most", n, c.most)
			}
			w.changes, w.echoes[inside] = nil, false
			w.run(4 * time.Second)
			w.down(true)
		})
	}
}

func TestTheFirstEndpointOfAPeerDoesNotWaitForOthers(t *testing.T) {
	tunnel := one(hub)
	tunnel.Peers = append(tunnel.Peers, config.Peer{Name: "b", Endpoints: endpoints("other.example"), PublicKeys: []string{"key-b"}})
	w := newWorld(t, tunnel)
	w.takes = time.Minute
	w.names["other.example"] = addresses("198.51.100.8")
	w.run(time.Second) // compiled for b, with a pause after it
	w.names[hub] = addresses("198.51.100.7")
	w.run(5 * time.Second) // until a's name is asked for again
	w.uses(e1)
}

func TestWhatIsNewIsCompiledAtOnceUnlessItIsAnEndpoint(t *testing.T) {
	at := time.Now()
	for _, c := range []struct {
		kinds []Kind
		took  time.Duration
		after time.Duration // that the last one was compiled
		want  time.Duration
	}{
		{nil, time.Second, 0, 0},
		{[]Kind{EndpointChanged}, 100 * time.Millisecond, 0, 2 * time.Second},
		{[]Kind{EndpointChanged, EndpointChanged}, 100 * time.Millisecond, 1500 * time.Millisecond, 500 * time.Millisecond},
		{[]Kind{EndpointChanged}, 100 * time.Millisecond, 2 * time.Second, 0},
		{[]Kind{EndpointChanged}, time.Minute, 0, 10 * time.Second},
		{[]Kind{EndpointChanged, PeerDown}, time.Minute, 0, 0},
		{[]Kind{PeerUp, EndpointChanged}, time.Minute, 0, 0},
		{[]Kind{KeyChanged}, time.Minute, 0, 0},
		{[]Kind{UnderlayChanged}, time.Minute, 0, 0},
	} {
		m := newMachine()
		m.change(Event{Kind: PeerDown})
		m.withheld(m.version, false)
		version, _ := m.compiling()
		m.compiled(version, c.took, at)
		for _, kind := range c.kinds {
			m.change(Event{Kind: kind})
		}
		m.withheld(m.version, false)
		if got := m.pause(at.Add(c.after)); got != c.want {
			t.Errorf("%v %s after a compilation of %s waits for %s, want %s", c.kinds, c.after, c.took, got, c.want)
		}
	}
}
