package netns

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/control/engine"
)

// lostAtMost are the echoes, 50 a second, that may go while a way is cut: it shows within 4 s (a probe that was just
// answered, three that are lost), each end has to notice by itself, and a daemon that is late does not count the probe.
const lostAtMost = 50 * 15

func TestTrafficTakesTheOtherTunnelWhileOneIsCut(t *testing.T) {
	t.Parallel()
	s := newTunnels(t, nil)
	s.degraded(engine.False, "")
	told := s.followTunnels()
	e := s.startEchoes(s.Workload(1), innerHost)
	e.more(100)

	s.must(s.ToR, "iptables -I FORWARD -p udp --dport 51820 -j DROP")
	s.routeIs("fra2")
	e.more(100)
	gaps := e.loses(1, "while fra1 was cut")
	if gaps[0] > lostAtMost || gaps[0] < 50 {
		t.Errorf("lost while fra1 was cut: %v, want some 200 at once", gaps)
	}
	t.Logf("lost %v echoes of 50 a second while fra1 was cut", gaps)
	s.degraded(engine.True, "tunnel fra1 to fra1: ")
	eventually(t, func() error { return told.has("down fra1") })
	if out := s.must(s.Gateway.Namespace, "ip route show 10.20.0.0/16"); strings.Contains(out, "fra1") || !strings.Contains(out, "blackhole") {
		t.Errorf("routes while fra1 is down:\n%s", out)
	}

	// A daemon that dies and comes back knows what it had decided.
	s.kill()
	e.more(50)
	s.start()
	s.routeIs("fra2")
	e.more(200) // longer than three probes take
	s.routeIs("fra2")
	s.nothingToDo()
	s.degraded(engine.True, "tunnel fra1")
	e.loses(1, "before and over the restart")

	told = s.followTunnels()
	s.must(s.ToR, "iptables -D FORWARD -p udp --dport 51820 -j DROP")
	s.routeIs("fra1")
	e.more(300) // and the peer's way back has changed, too
	s.degraded(engine.False, "")
	eventually(t, func() error { return told.has("up fra1") })
	e.loses(1, "before and on the way back")
}

func TestAPeerIsFoundAtItsOtherEndpointAndByItsName(t *testing.T) {
	t.Parallel()
	const first, other = directEndpoint, translatedEndpoint
	s := newTunnels(t, []string{`endpoints: ["198.18.0.6:51820"]`, `endpoints: ["198.18.0.6:51820", "hub.example:51820"]`})
	s.degraded(engine.True, "hub.example does not resolve") // nobody answers at node.dns
	names := s.startDNS("198.18.7.7", "2001:db8:7::7")
	within(t, time.Minute, func() error {
		if names.answered() == 0 {
			return fmt.Errorf("nobody asks for the name")
		}
		return nil
	})
	s.degraded(engine.False, "")
	told := s.followTunnels()
	e := s.startEchoes(s.Gateway.Namespace, "10.200.0.0")
	e.more(50)
	if got := s.endpoint("fra1"); got != first {
		t.Fatalf("fra1 sends to %s", got)
	}

	s.cut(first, true)
	s.endpointWithin("fra1", other, 60*time.Second)
	e.more(50)
	eventually(t, func() error { return told.has("down fra1", "endpoint fra1", "up fra1") })
	s.cut(first, false)

	_, gaps := e.gaps()
	s.kill()
	s.start()
	s.nothingToDo()
	e.more(100)
	if got := s.endpoint("fra1"); got != other {
		t.Errorf("after a restart fra1 sends to %s, want it where it was", got)
	}

	// Its name says otherwise now, and it is where it was: nothing moves. Then it is not any more.
	names.say("198.18.0.6")
	s.edit("metric: 200", "metric: 201")
	s.apply()
	e.more(100)
	if got := s.endpoint("fra1"); got != other {
		t.Errorf("after an apply fra1 sends to %s, want it where it was", got)
	}
	e.loses(len(gaps), "before and over a restart and an apply")
	s.cut(other, true)
	s.endpointWithin("fra1", first, 90*time.Second)
	e.more(50)
}

// Roaming is the peer's own doing: it goes on from another address, and is answered there.
func TestAPeerThatRoamsStaysWhereItIs(t *testing.T) {
	t.Parallel()
	const moved = directEndpoint
	s := newTunnels(t, []string{`endpoints: ["198.18.0.6:51820"]`, `endpoints: ["198.18.7.7:51820"]`},
		func(s *site) { s.cut(directEndpoint, true) })
	if got := s.endpoint("fra1"); got != translatedEndpoint {
		t.Fatalf("fra1 sends to %s", got)
	}
	s.cut(translatedEndpoint, true)
	s.cut(directEndpoint, false)
	s.endpointWithin("fra1", moved, 90*time.Second) // once the other end has found out
	e := s.startEchoes(s.Gateway.Namespace, "10.200.0.0")
	e.more(100)
	stays := func(when string) {
		t.Helper()
		e.more(100)
		if got := s.endpoint("fra1"); got != moved {
			t.Fatalf("%s fra1 sends to %s", when, got)
		}
	}
	s.edit("metric: 200", "metric: 201")
	s.apply()
	stays("after an apply")
	s.kill()
	s.start()
	s.nothingToDo()
	stays("after a restart")
	s.edit("metric: 201", "metric: 202")
	s.apply()
	stays("after a restart and an apply")
	e.loses(0, "though the endpoint stayed")
}

func TestTheMTUOfATunnelFollowsTheWayToItsEndpoint(t *testing.T) {
	t.Parallel()
	s := newTunnels(t, nil)
	mtu := func(want int, limit time.Duration) {
		t.Helper()
		took := within(t, limit, func() error {
			if out := s.must(s.Gateway.Namespace, "ip link show fra1"); !strings.Contains(out, fmt.Sprintf(" mtu %d ", want)) {
				return fmt.Errorf("want MTU %d: %s", want, out)
			}
			return nil
		})
		t.Logf("MTU %d after %s", want, took.Round(100*time.Millisecond))
	}
	mtu(1440, 0)
	s.must(s.Gateway.Namespace, "ip link set eth0 mtu 1400")
	mtu(1340, 10*time.Second)
	s.must(s.Gateway.Namespace, "ip link set eth0 mtu 1500")
	mtu(1440, 10*time.Second)
	s.must(s.Gateway.Namespace, "ip route add 198.18.0.6/32 via 198.18.0.1 mtu 1380")
	mtu(1320, 10*time.Second)
	s.must(s.Gateway.Namespace, "ip route del 198.18.0.6/32")
	mtu(1440, 10*time.Second)
	// What the path itself says comes without an event.
	s.must(s.ToR, "ip link set peer mtu 1300")
	if r := s.in(s.Gateway.Namespace, "ping", "-n", "-c2", "-W1", "-M", "do", "-s", "1400", "198.18.0.6"); r.code == 0 {
		t.Fatalf("a packet of 1428 bytes fits: %s", r.out)
	}
	mtu(1240, 45*time.Second)
	e := s.startEchoes(s.Gateway.Namespace, "10.200.0.0")
	e.more(50)
}

// Each apply changes a peer beside the one that is pinged.
func TestAnApplyThatChangesAPeerLosesNoPacketOfAnother(t *testing.T) {
	t.Parallel()
	s := newTunnels(t, []string{"health: {probe: 10.200.0.0}", "health: {interval: 1s}", "metric: 100", "metric: 100\n        probe: 10.200.0.0"})
	e := s.startEchoes(s.Workload(1), innerHost)
	e.more(50)
	const beside = `
      - {name: beside, endpoints: ["198.51.100.%d:51820", "other.example:51820"], public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=], prefixes: [10.%d.0.0/16], keepalive: %ds}`
	plain := s.file
	for i := range 6 {
		text := plain
		if i < 5 {
			text = edited(t, plain, "probe: 10.200.0.0", "probe: 10.200.0.0"+fmt.Sprintf(beside, 20+i, 30+i, 1+i))
		}
		s.write(text)
		s.apply()
		e.more(25)
	}
	e.loses(0, "beside the applies")
}
