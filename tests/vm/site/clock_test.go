//go:build vmguest

package site

import (
	"fmt"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/control/api"
)

// turn turns the clock of the machine, and with it that of all daemons, until back is called or the step ends.
func (s *site) turn(by time.Duration) (back func()) {
	s.t.Helper()
	t := s.t
	set := func(by time.Duration) {
		now := unix.NsecToTimeval(time.Now().Add(by).UnixNano())
		if err := unix.Settimeofday(&now); err != nil {
			t.Fatal(err)
		}
	}
	set(by)
	back = sync.OnceFunc(func() { set(-by) })
	t.Cleanup(back)
	return back
}

// The clock concerns IPsec's epochs, which must not fall, and must be found by a peer that did not see the step.
func (s *site) aClockThatIsYearsAheadStopsNothing() {
	defer s.cut(udp)() // so that it is ESP that carries, and that nobody hears a greeting of WireGuard's from the time to come
	s.routeIs("fra2")
	f := s.startStream(s.Workload(1), inner)
	f.more(100)
	f.lost()
	before := s.gateway.epochs()

	// Who made keys measures their age by a clock that nobody sets.
	back := s.turn(3 * 365 * 24 * time.Hour)
	f.more(500)
	f.lostNothing("when the clock went three years ahead")
	if now := s.gateway.epochs(); now != before {
		s.t.Errorf("epochs %+v, before %+v", now, before)
	}

	// Who finds them in the kernel has the wall clock alone: they are years old, and make room for new ones.
	s.gateway.kill()
	s.gateway.start()
	s.gateway.tunnelsAre(api.PeerUp, "fra2")
	eventually(s.t, func() error {
		if now := s.gateway.epochs(); now != (epochs{before.own + 1, before.peer}) {
			return fmt.Errorf("epochs %+v, before %+v", now, before)
		}
		return nil
	})
	f.more(100)
	f.lostNothing("over a restart years ahead, with new keys")

	// A boot takes the clock at its word.
	s.reboot(s.gateway)
	f.sends(50)
	s.gateway.start()
	s.gateway.tunnelsAre(api.PeerUp, "fra2")
	f.more(100)
	f.logLost("over a reboot years ahead")
	ahead := s.gateway.epochs()
	if years := 3 * 365 * 24 * 60; ahead.own < before.own+uint64(years)-60 || ahead.peer != before.peer {
		s.t.Errorf("after a reboot years ahead %+v, before %+v", ahead, before)
	}

	// And what was begun goes on when it is right again.
	back()
	f.more(200)
	s.gateway.sluice("key rotate fra2")
	f.more(100)
	s.gateway.kill()
	f.more(100)
	s.gateway.start()
	s.gateway.tunnelsAre(api.PeerUp, "fra2")
	s.gateway.nothingToDo()
	f.more(100)
	f.lostNothing("when the clock was put right, with new keys and a restart")
	if now := s.gateway.epochs(); now != (epochs{ahead.own + 1, ahead.peer}) {
		s.t.Errorf("with the clock put right %+v, ahead %+v", now, ahead)
	}
}

// WireGuard takes no greeting that is older than the last: with the clock set back the session ends after three minutes at most, and
// no other comes about before the clock has caught up, or one end has forgotten. The other tunnel carries what this one cannot.
func (s *site) aClockThatIsSetBackStopsNothing() {
	slow := s.startStreamEvery(100*time.Millisecond, s.Workload(1), inner)
	slow.more(20)
	slow.lost()
	before := s.gateway.epochs()
	s.turn(-2 * time.Hour)
	slow.more(50)
	slow.lostNothing("when the clock was set back")
	slow.more(900)
	slow.more(900)
	s.gateway.tunnelsAre(api.PeerDown, "fra1")
	s.peer.tunnelsAre(api.PeerDown, "edge1")
	s.routeIs("fra2")
	slow.more(50)
	slow.logLost("when WireGuard's session was over")

	f := s.startStream(s.Workload(1), inner)
	f.more(50)
	f.lost()
	s.gateway.sluice("key rotate fra2")
	f.more(100)
	s.gateway.kill()
	s.gateway.start()
	s.gateway.tunnelsAre(api.PeerUp, "fra2")
	s.gateway.nothingToDo()
	f.more(100)
	f.lostNothing("over new keys and a restart with a clock that was set back")
	after := s.gateway.epochs()
	if after != (epochs{before.own + 1, before.peer}) {
		s.t.Errorf("epochs %+v, before %+v", after, before)
	}
	if out := s.gateway.sluice("show tunnels"); regexp.MustCompile(` -\d`).MatchString(out) {
		s.t.Errorf("show tunnels tells of times to come:\n%s", out)
	}

	// States that are gone as well: the epoch goes on, whatever the clock says.
	s.gateway.kill()
	s.must(s.Gateway.Namespace, "ip link del fra2")
	s.must(s.Gateway.Namespace, "ip xfrm state flush")
	s.gateway.start()
	s.gateway.tunnelsAre(api.PeerUp, "fra2")
	if now := s.gateway.epochs(); now.own <= after.own {
		s.t.Errorf("epochs %+v, before %+v", now, after)
	}

	// A device that is made anew has forgotten, and takes the other end's greeting.
	s.must(s.Gateway.Namespace, "ip link del fra1")
	s.t.Logf("WireGuard is up after %s", s.gateway.tunnelsAre(api.PeerUp, "fra1"))
	f.more(100)
	f.logLost("while states and devices were gone")
}

// epochs are those of a tunnel's two directions.
type epochs struct{ own, peer uint64 }

func (e *end) epochs() epochs {
	e.t.Helper()
	_, p := e.tunnel("fra2")
	if p.SA == nil {
		e.t.Fatalf("fra2 has no SA: %+v", p)
	}
	return epochs{p.SA.Epoch, p.SA.PeerEpoch}
}
