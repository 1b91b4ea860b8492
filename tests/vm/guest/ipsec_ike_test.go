//go:build vmguest

package guest

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"sluice/crypto/ipsec"
	"sluice/tests/charon"
)

// newIKESite is an espSite whose tunnels get their keys from charons, which do not run yet.
func newIKESite(t *testing.T, o outer) (s *espSite, a, b *charon.Daemon) {
	t.Helper()
	s = newESPSite(t, o)
	of := func(n *espNode) *charon.Daemon {
		c := charon.New(t, charon.Kernel, func(f func() error) error { n.do(t, f); return nil })
		tunnel := &n.want.Tunnels[0]
		tunnel.Keying, tunnel.Charon = ipsec.IKE, c.Socket
		return c
	}
	return s, of(s.a), of(s.b)
}

func (n *espNode) tunnelStatus(t *testing.T) ipsec.TunnelStatus {
	t.Helper()
	var all []ipsec.TunnelStatus
	n.do(t, func() (err error) {
		all, err = n.esp.Status(context.Background())
		return err
	})
	if len(all) != 1 || len(all[0].Peers) != 1 {
		t.Fatalf("status %+v", all)
	}
	return all[0]
}

// becomes waits for a state of the one peer: an attempt that begins at a bad moment is made anew after ten seconds.
func (n *espNode) becomes(t *testing.T, state string) {
	t.Helper()
	for deadline := time.Now().Add(3 * patience); ; time.Sleep(50 * time.Millisecond) {
		s := n.tunnelStatus(t)
		if s.Peers[0].State == state {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s not %s, but %+v", 3*patience, state, s)
		}
	}
}

// kernel counts states and policies with interface ids.
func (n *espNode) kernel(t *testing.T) (states, policies int) {
	t.Helper()
	n.do(t, func() error {
		all, err := netlink.XfrmStateList(netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		// What waits for keys goes by itself: a packet that met charon's policy without a state has made it, without an SPI, or charon has
		// put an SPI by for an exchange that another one forestalled.
		states = len(slices.DeleteFunc(all, func(st netlink.XfrmState) bool { return st.Aead == nil }))
		list, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
		// charon's own sockets have policies that let IKE pass.
		policies = len(slices.DeleteFunc(list, func(p netlink.XfrmPolicy) bool { return p.Ifid == 0 }))
		return err
	})
	return states, policies
}

func TestESPByCharonHoldsThePeersOfATunnel(t *testing.T) {
	s, a, b := newIKESite(t, outer{false, ipsec.Auto})
	for _, n := range []*espNode{s.a, s.b} {
		n.converge(t) // with no charon: that is no failure
		n.keep(t)
		if ops := n.converge(t); len(ops) != 0 {
			t.Errorf("without charon, a second apply does %q", ops)
		}
	}
	s.leaksNothing(t, "charon is missing")
	missing := s.a.tunnelStatus(t)
	if missing.Peers[0].State != "unknown" || !strings.Contains(missing.Charon, "charon does not answer at "+a.Socket+": start strongSwan") {
		t.Errorf("status %+v", missing)
	}

	a.Start(t)
	b.Start(t)
	s.a.becomes(t, "up")
	s.a.answers(t, "10.20.0.1")
	s.a.answers(t, "fd00:20::1")
	for _, n := range []*espNode{s.a, s.b} {
		if diff := cmp.Diff(n.want, n.look(t), equal); diff != "" {
			t.Errorf("(-want +have):\n%s", diff)
		}
		if ops := n.converge(t); len(ops) != 0 {
			t.Errorf("a second apply does %q", ops)
		}
	}
	up := s.a.tunnelStatus(t)
	if p := up.Peers[0]; !up.Running || up.Charon != "" || p.SPI == 0 || p.TxPackets == 0 || p.RxBytes == 0 || p.Sequence == 0 || p.Rekey == 0 || p.Begun.IsZero() {
		t.Errorf("status %+v", up)
	}

	// A daemon that was killed adopts what is there, and nothing is lost.
	count := s.a.startEchoes(t)
	before := s.a.tunnelStatus(t).Peers[0].SPI
	eventually(t, "the tunnel is on the disk", func() bool {
		file, err := os.ReadFile(filepath.Join(s.a.dir, "ipsec", "fra1.json"))
		return err == nil && strings.Contains(string(file), a.Socket)
	})
	s.a.end()
	s.a.esp = nil // nobody says Stop
	s.a.boot(t)
	if ops := s.a.converge(t); len(ops) != 0 {
		t.Errorf("the restarted daemon does %q", ops)
	}
	s.a.esp.Remember(s.a.want)
	s.a.keep(t)
	count.more(t, 50)
	if after := s.a.tunnelStatus(t).Peers[0].SPI; after != before {
		t.Errorf("the restarted daemon has made new keys")
	}
	s.a.rotate(t)
	eventually(t, "there are new keys", func() bool { return s.a.tunnelStatus(t).Peers[0].SPI != before })
	count.finish(t, 50)

	a.Kill()
	s.a.becomes(t, "unknown")
	s.leaksNothing(t, "charon is dead")
	a.Start(t)
	s.a.becomes(t, "up")
	s.a.answers(t, "10.20.0.1")

	if ops := s.gone(t); len(ops) == 0 {
		t.Error("nothing is done to remove the tunnel")
	}
	if states, policies := s.a.kernel(t); states != 0 || policies != 0 {
		t.Errorf("%d states and %d policies are left", states, policies)
	}
	s.leaksNothing(t, "the tunnel is removed, and its blackholes stand")
	s.a.answersTo(t, "198.18.0.2", marker)
	if clear, _ := s.passed(t); clear == 0 {
		t.Error("the capture is blind: it has not seen what was sent in clear")
	}
}

// gone removes a's tunnel and leaves the blackholes.
func (s *espSite) gone(t *testing.T) []string {
	t.Helper()
	s.a.want = ipsec.State{}
	ops := s.a.converge(t)
	if have := s.a.look(t); len(have.Tunnels) != 0 {
		t.Errorf("left: %+v", have)
	}
	return ops
}

func TestESPMovesBetweenStaticKeysAndCharon(t *testing.T) {
	s, a, b := newIKESite(t, outer{true, ipsec.None})
	a.Start(t)
	b.Start(t)
	for round, keying := range []ipsec.Keying{ipsec.Static, ipsec.IKE, ipsec.Static} {
		for _, n := range []*espNode{s.b, s.a} {
			n.want.Tunnels[0].Keying = keying
			n.converge(t)
			if round == 0 {
				n.keep(t)
			}
		}
		s.a.answers(t, "10.20.0.1")
		if diff := cmp.Diff(s.a.want, s.a.look(t), equal); diff != "" {
			t.Errorf("%s (-want +have):\n%s", keying, diff)
		}
		if ops := s.a.converge(t); len(ops) != 0 {
			t.Errorf("%s: a second apply does %q", keying, ops)
		}
		if keying == ipsec.Static {
			// Where an epoch begins there is a state more for a moment.
			eventually(t, "there are two states each way and no more", func() bool { states, _ := s.a.kernel(t); return states == 4 })
		}
		states, policies := s.a.kernel(t)
		t.Logf("%s: %d states, %d policies", keying, states, policies)
		if policies == 0 {
			t.Errorf("%s: no policies", keying)
		}
	}
	s.leaksNothing(t, "all is over")
}

func TestESPPeersOfTheSameIdentitiesAreRefused(t *testing.T) {
	s, _, _ := newIKESite(t, outer{false, ipsec.None})
	twin := s.a.want.Tunnels[0]
	twin.Name, twin.Addresses, twin.Routes = "fra2", nil, nil
	s.a.want.Tunnels = append(s.a.want.Tunnels, twin)
	_, err := s.a.tryConverge(t)
	if err == nil || !strings.Contains(err.Error(), "fra1") || !strings.Contains(err.Error(), "fra2") || !strings.Contains(err.Error(), "different ids") {
		t.Errorf("error %v", err)
	}
}
