package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/config"
	"sluice/control/engine"
	"sluice/control/tunnel"
	"sluice/crypto/ipsec"
	"sluice/crypto/path"
	"sluice/crypto/wireguard"
)

func TestAPeerThatIsLostLosesItsRoutesWhileTheEngineIsBusy(t *testing.T) {
	for _, c := range []struct {
		name   string
		fails  error
		metric int // of fra1 afterwards
		also   string
	}{
		{"with an apply that does what it was to do", nil, 110, ", 10.30.0.0/16 by fra1 at 110"},
		{"with an apply that goes back", errors.New("it does not fit"), 100, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newBusySite(t)
			s.apply(s.candidate("0", 100, ""))
			backup := func(metric int) string {
				return fmt.Sprintf("10.20.0.0/16 by fra2 at %d, 10.40.0.0/16 by fra2 at %[1]d", metric)
			}
			s.until("fra1 has answered, before which fra2 keeps the traffic", func() bool { return s.routes() == "10.20.0.0/16 by fra1 at 100, "+backup(200) })
			s.answered()

			// The plan that is held has another metric for the route, and another prefix of the peer: both come after the loss.
			s.slow.meanwhile = func() error {
				s.silent.Store(true)
				s.until("the routes of fra1 are withdrawn while the engine is busy", func() bool { return s.routes() == backup(200) })
				s.until("the file says so", func() bool {
					data, _ := os.ReadFile(filepath.Join(s.opts.StateDir, "tunnels.json"))
					return strings.Contains(string(data), `"down": true`)
				})
				if !s.compiledAs(1)() {
					t.Error("the engine was not busy")
				}
				s.slow.meanwhile = func() error { return nil }
				return c.fails
			}
			held := s.candidate("1", 110, ", 10.30.0.0/16")
			_, err := s.engine.Apply(t.Context(), held, engine.ApplyOptions{})
			if (err != nil) != (c.fails != nil) {
				t.Fatal(err)
			}
			s.routesAre("after the held apply", backup(c.metric+100))
			s.until("what is wanted agrees", s.compiledAs(0))
			if c.fails == nil {
				if p, err := s.engine.Plan(t.Context(), held); err != nil || len(p.Steps) > 0 {
					t.Errorf("a plan has steps left: %v (%v)", p, err)
				}
			}
			if err := s.engine.Reconcile(t.Context(), engine.Drift); err != nil {
				t.Error(err)
			}
			s.routesAre("after a repair", backup(c.metric+100))

			// What comes back does so once it was compiled.
			s.silent.Store(false)
			want := fmt.Sprintf("10.20.0.0/16 by fra1 at %d, 10.20.0.0/16 by fra2 at %d%s, 10.40.0.0/16 by fra2 at %[2]d", c.metric, c.metric+100, c.also)
			s.until("fra1 is back", func() bool { return s.routes() == want })
			s.end()
			if text := s.log.String(); strings.Contains(text, "the machine differs") {
				t.Errorf("what is wanted and what is there did not agree:\n%s", text)
			}
		})
	}
}

// A file that asks another address, or nobody, lets the routes back though no probe was answered.
func TestAPeerThatIsNoLongerProbedHasItsRoutesBack(t *testing.T) {
	s := newBusySite(t)
	c := s.candidate("0", 100, "")
	s.apply(c)
	s.until("fra1 is there", func() bool { return strings.Contains(s.routes(), "fra1") })
	s.answered()
	s.silent.Store(true)
	s.until("fra1 is down", func() bool { return !strings.Contains(s.routes(), "fra1") })
	s.until("what is wanted agrees", s.compiledAs(0))
	text := strings.Replace(string(c.Bytes), "health: {probe: 10.200.0.0, interval: 100ms}", "mtu: 1400", 1)
	cfg, err := s.parse("/edge.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(engine.Candidate{Name: "/edge.yaml", Bytes: []byte(text), Config: cfg})
	s.until("fra1 is back", func() bool { return strings.Contains(s.routes(), "10.20.0.0/16 by fra1 at 100") })
}

func TestPeersAreWithheldAsTheirDriversKnowThem(t *testing.T) {
	s := newBusySite(t)
	err := s.withhold(t.Context(), []tunnel.Down{
		{Tunnel: "w", Type: config.TypeWireGuard, Peer: "a", PublicKeys: []string{"k1", "k2"}}, {Tunnel: "i", Type: config.TypeIPsec, Peer: "b"},
	})
	if err != nil {
		t.Error(err)
	}
	one, two := netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("10.30.0.0/16")
	routes := []path.Route{{Prefix: one}, {Prefix: two}}
	w := s.wireguard.Wanted(wireguard.State{Tunnels: []wireguard.Tunnel{{Name: "w", Routes: routes,
		Peers: []wireguard.Peer{{Name: "a", PublicKey: "k2", AllowedIPs: []netip.Prefix{one}}, {Name: "b", PublicKey: "k3", AllowedIPs: []netip.Prefix{two}}}}}})
	i := s.ipsec.Wanted(ipsec.State{Tunnels: []ipsec.Tunnel{{Name: "i", Routes: routes,
		Peers: []ipsec.Peer{{Name: "a", Prefixes: []netip.Prefix{one}}, {Name: "b", Prefixes: []netip.Prefix{two}}}}}})
	if got := w.Tunnels[0].Routes; len(got) != 1 || got[0].Prefix != two {
		t.Errorf("WireGuard: %v", got)
	}
	if got := i.Tunnels[0].Routes; len(got) != 1 || got[0].Prefix != one {
		t.Errorf("IPsec: %v", got)
	}
}
