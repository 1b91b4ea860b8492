package tunnel

import (
	"net/netip"
	"testing"
	"time"

	"sluice/control/config"
)

// A peer with two keys is two peers of its device.
func TestTheKeyOfTheNewestHandshakeIsInUse(t *testing.T) {
	tunnel := one(e1)
	tunnel.Peers[0].PublicKeys = []string{"old", "new"}
	w := newWorld(t, tunnel)
	begin := w.now
	hands := map[string]time.Time{"old": begin.Add(-time.Minute)}
	see := func() {
		w.now = w.now.Add(200 * time.Millisecond)
		var list []Seen
		for _, key := range []string{"old", "new"} {
			list = append(list, Seen{Tunnel: "fra1", PublicKey: key, Handshake: hands[key], Rx: 1, Tx: 1})
		}
		w.m.seen(config.TypeWireGuard, list, w.now)
		w.step()
	}
	uses := func(want string) {
		t.Helper()
		if got := w.told["fra1"].Peers["a"].PublicKey; got != want {
			t.Errorf("key %q, want %q", got, want)
		}
	}
	see()
	uses("")
	hands["old"] = w.now
	see()
	uses("")
	w.changed(0)
	hands["new"] = w.now
	see()
	uses("new")
	w.changed(1)
	if len(w.events) != 1 || w.events[0] != (Event{KeyChanged, "fra1", "a", "peer a shook hands with its key new: its prefixes are that one's now"}) {
		t.Errorf("told %+v", w.events)
	}
	w.restart()
	uses("new")
	see()
	uses("new")
	w.changed(0)
	hands["old"] = w.now.Add(-time.Hour) // it took its old key again, and its clock was set back meanwhile
	see()
	uses("old")
	hands["old"], hands["new"] = w.now, w.now.Add(time.Millisecond) // both in one look
	see()
	uses("new")
	tunnel.Peers[0].PublicKeys = []string{"new"} // and the old one is gone from the file
	w.apply(tunnel)
	uses("new")
	tunnel.Peers[0].PublicKeys = []string{"third"}
	w.apply(tunnel)
	uses("")
}

// A key that is only staged is greeted in vain, and that is nobody's silence.
func TestHandshakesWithAStagedKeyAreNoSilence(t *testing.T) {
	tunnel := one(e1, e2)
	tunnel.Peers[0].PublicKeys = []string{"old", "new"}
	w := newWorld(t, tunnel)
	for i := range 300 {
		w.now = w.now.Add(time.Second)
		w.m.seen(config.TypeWireGuard, []Seen{
			{Tunnel: "fra1", PublicKey: "old", Handshake: w.now, Rx: 1, Tx: 1},
			{Tunnel: "fra1", PublicKey: "new", Rx: 0, Tx: uint64(i) * 148},
		}, w.now)
		w.step()
	}
	w.changed(0)
}

func TestTheSmallestUnderlayIsTheTunnels(t *testing.T) {
	tunnel := one(e1, e2)
	b := config.Peer{Name: "b", Endpoints: endpoints(e3), PublicKeys: []string{"key-b"}}
	tunnel.Peers = append(tunnel.Peers, b)
	w := newWorld(t, tunnel)
	set := func(address string, mtu int) { w.mtu[netip.MustParseAddr(address)] = mtu }
	underlay := func(want int) {
		t.Helper()
		w.run(underlayEvery + time.Second)
		if got := w.told["fra1"].Underlay; got != want {
			t.Errorf("%d bytes, want %d", got, want)
		}
	}
	underlay(0) // no route
	w.changed(0)
	set("198.51.100.7", 9000)
	set("2001:db8::9", 1500)
	underlay(1500)
	w.changed(1)
	set("198.51.100.8", 1280) // which nobody uses
	underlay(1500)
	set("198.51.100.7", 1400)
	underlay(1400)
	w.changed(1)
	clear(w.mtu)
	underlay(1400) // without a route what is known stays
	set("198.51.100.7", 1400)
	w.restart()
	underlay(1400)
	w.changed(0)
	w.a().endpoint = netip.MustParseAddrPort(roamed) // packets go there now
	set("192.0.2.9", 1300)
	underlay(1300)
	tunnel.MTU = 1420
	w.apply(tunnel)
	set("198.51.100.7", 1000)
	w.changes = nil
	w.run(5 * time.Minute)
	w.changed(0) // the file's own holds
}

func TestTunnelsThatAreNewAreMeasuredBeforeTheyAreCompiled(t *testing.T) {
	w := newWorld(t, one(e1))
	other := one(e2, e3)
	other.Name = "ams1"
	fixed := one(e2)
	fixed.Name, fixed.MTU = "par1", 1420
	list := []config.Tunnel{one(e1), other, fixed}
	w.m.tunnels["fra1"].underlay = 1500
	got := w.m.unmeasured(list)
	if len(got) != 1 || len(got["ams1"]) != 1 || got["ams1"][0] != netip.MustParseAddr("198.51.100.8") {
		t.Errorf("unmeasured are %v", got)
	}
	w.m.measured["ams1"] = 1400
	w.apply(list...)
	if got := w.told["ams1"].Underlay; got != 1400 {
		t.Errorf("%d bytes", got)
	}
	w.mtu[netip.MustParseAddr("198.51.100.8")] = 1400
	w.mtu[netip.MustParseAddr("198.51.100.7")] = 1500
	w.run(time.Minute)
	w.changed(0)
}

func TestAPeerOfIPsecThatIsFollowedIsMeasuredWhereItIs(t *testing.T) {
	tunnel := one(e1)
	tunnel.Type = config.TypeIPsec
	w := newWorld(t, tunnel)
	for address, mtu := range map[string]int{"198.51.100.7": 1200, "192.0.2.9": 1400} {
		w.mtu[netip.MustParseAddr(address)] = mtu
	}
	for _, c := range []struct {
		at   netip.AddrPort
		want int
	}{{netip.MustParseAddrPort(e1), 1200}, {netip.MustParseAddrPort(roamed), 1400}, {netip.MustParseAddrPort(e1), 1200}} {
		w.m.seen(config.TypeIPsec, []Seen{{Tunnel: "fra1", Peer: "a", PublicKey: tunnel.Peers[0].PublicKeys[0], Endpoint: c.at}}, w.now)
		w.run(underlayEvery + time.Second)
		if got := w.told["fra1"].Underlay; got != c.want {
			t.Errorf("at %s: %d bytes, want %d", c.at, got, c.want)
		}
	}
}
