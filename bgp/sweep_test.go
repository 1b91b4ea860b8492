package bgp

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

var (
	slow = netip.MustParseAddr("198.18.0.1")
	gone = netip.MustParseAddr("198.18.1.1")
	ipv4 = []bgp.Family{bgp.RF_IPv4_UC}
)

// sweepAt is when the sweep is, if both neighbors are waited for and what happens does so each second.
func sweepAt(t *testing.T, happens func(*sweeper, time.Duration)) (at time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := newSweeper(func() { at = time.Since(begin) }, func() bool { return true })
		defer s.stop()
		s.expect(slow, ipv4)
		s.expect(gone, ipv4)
		for at == 0 && time.Since(begin) < time.Hour {
			time.Sleep(time.Second)
			synctest.Wait()
			happens(s, time.Since(begin))
		}
	})
	return at
}

func TestATableThatStillArrivesIsNotSwept(t *testing.T) {
	for name, c := range map[string]struct {
		happens  func(*sweeper, time.Duration)
		from, to time.Duration
	}{
		"nobody says anything": {func(*sweeper, time.Duration) {}, sweepAfter, sweepAfter},
		"one needs five minutes": {func(s *sweeper, now time.Duration) {
			if now < 5*time.Minute {
				s.heard(slow)
			}
		}, 5*time.Minute + sweepQuiet - 2*time.Second, 5*time.Minute + 2*sweepQuiet},
		"one has told all, and changes": {func(s *sweeper, now time.Duration) {
			if now == time.Minute {
				s.received(slow, bgp.RF_IPv4_UC)
			}
			s.heard(slow)
		}, sweepAfter, sweepAfter + sweepQuiet},
		"both have told all": {func(s *sweeper, now time.Duration) {
			if now == time.Minute {
				s.received(slow, bgp.RF_IPv4_UC)
				s.received(gone, bgp.RF_IPv4_UC)
			}
		}, time.Minute, time.Minute},
		"one never has": {func(s *sweeper, _ time.Duration) { s.heard(slow) }, sweepAtLast, sweepAtLast + sweepQuiet},
	} {
		t.Run(name, func(t *testing.T) {
			if at := sweepAt(t, c.happens); at < c.from || at > c.to {
				t.Errorf("the sweep is after %v, want %v to %v", at, c.from, c.to)
			}
		})
	}
}
