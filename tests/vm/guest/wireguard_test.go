//go:build vmguest

package guest

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/crypto/wireguard"
)

var equal = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{})

func TestTheKernelOffersWireGuard(t *testing.T) {
	if yes, err := wireguard.KernelSupported(context.Background()); err != nil || !yes {
		t.Fatalf("KernelSupported = %v, %v", yes, err)
	}
}

func TestAKernelTunnelCarriesTrafficAndOnlyEncrypted(t *testing.T) {
	for name, at := range map[string]string{"over IPv4": "198.18.0.2:51820", "over IPv6": "[2001:db8::2]:51820"} {
		t.Run(name, func(t *testing.T) { carriesOnlyEncrypted(t, netip.MustParseAddrPort(at)) })
	}
}

func carriesOnlyEncrypted(t *testing.T, at netip.AddrPort) {
	s := newSite(t, wireguard.Auto, wireguard.Auto)
	s.wantA.Tunnels[0].Peers[0].Endpoint = at
	s.up(t)
	for _, address := range []string{"10.20.0.1", "fd00:20::1"} {
		s.a.answers(t, address)
	}
	clear, encrypted := s.seen(t)
	if clear != 0 || encrypted == 0 {
		t.Errorf("on the wire: %d frames in clear, %d to the tunnel's port", clear, encrypted)
	}
	s.a.answersTo(t, "198.18.0.2", marker)
	if clear, _ := s.seen(t); clear == 0 {
		t.Error("the capture is blind: it has not seen what was sent in clear")
	}
	want := wireguard.State{Tunnels: slices.Clone(s.wantA.Tunnels)}
	want.Tunnels[0].Backend = wireguard.Kernel // what auto has chosen
	if diff := cmp.Diff(want, s.a.observe(t), equal); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
	if ops := s.a.converge(t, s.wantA); len(ops) != 0 {
		t.Errorf("a second apply does %v", ops)
	}
	status := s.a.status(t)
	if len(status) == 1 && status[0].Peers[0].Endpoint != at.String() {
		t.Errorf("it is spoken to at %s", status[0].Peers[0].Endpoint)
	}
	if len(status) != 1 || status[0].Backend != wireguard.Kernel || !status[0].Running || status[0].Peers[0].LastHandshake.IsZero() {
		t.Errorf("status %+v", status)
	}
}

func TestKernelAndUserspaceUnderstandEachOther(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Userspace)
	s.up(t)
	for _, address := range []string{"10.20.0.1", "fd00:20::1"} {
		s.a.answers(t, address)
	}
	if got := s.b.observe(t).Tunnels[0].Backend; got != wireguard.Userspace {
		t.Errorf("b runs %s", got)
	}
}

func TestARestartedDaemonAdoptsAKernelTunnelByDoingNothing(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	s.up(t)
	count := s.a.startEchoes(t)
	s.a.restart(t)
	s.a.driver.Remember(s.wantA)
	if ops := s.a.converge(t, s.wantA); len(ops) != 0 {
		t.Errorf("the restarted daemon does %v", ops)
	}
	count.finish(t, 20)
	if name := s.a.status(t)[0].Peers[0].Name; name != "b" {
		t.Errorf("the peer is called %q", name)
	}
}

func TestChangesOfOnePeerCostAnotherNoPacketInTheKernel(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	third := wireguard.Peer{Name: "c", PublicKey: newKey(t, "c").public, AllowedIPs: list("10.40.0.0/16")}
	s.up(t)
	count := s.a.startEchoes(t)
	for i := range 20 {
		w := s.wantA.Tunnels[0]
		w.Peers = slices.Clone(w.Peers)
		extra := list("10.21.0.0/16", "fd00:21::/64")
		if i%2 == 0 {
			w.Peers[0].AllowedIPs = slices.Concat(w.Peers[0].AllowedIPs, extra)
		}
		if i%3 != 0 {
			c := third
			if i%2 == 1 {
				c.AllowedIPs = slices.Concat(c.AllowedIPs, extra)
			}
			w.Peers = append(w.Peers, c)
		}
		want := wireguard.State{Tunnels: []wireguard.Tunnel{w}}
		s.a.converge(t, want)
		slices.SortFunc(w.Peers, func(a, b wireguard.Peer) int { return strings.Compare(a.PublicKey, b.PublicKey) })
		for j := range w.Peers {
			w.Peers[j].AllowedIPs = slices.SortedFunc(slices.Values(w.Peers[j].AllowedIPs), netip.Prefix.Compare)
		}
		if diff := cmp.Diff(want, s.a.observe(t), equal); diff != "" {
			t.Fatalf("round %d (-want +have):\n%s", i, diff)
		}
		count.more(t, 3)
	}
	count.finish(t, 60)
}

func TestAttributesOfAKernelTunnelChangeInPlace(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	s.up(t)
	key := newKey(t, "new")
	w := s.wantA.Tunnels[0]
	w.PrivateKeyFile, w.PublicKey = key.file, key.public
	w.ListenPort, w.MTU, w.FirewallMark = 51999, 1380, 7
	w.Addresses = list("10.200.0.9/24")
	w.Peers = slices.Clone(w.Peers)
	w.Peers[0].PresharedKeyFile, w.Peers[0].Keepalive = "", 0
	want := wireguard.State{Tunnels: []wireguard.Tunnel{w}}
	s.a.converge(t, want)
	if diff := cmp.Diff(want, s.a.observe(t), equal); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
}

func TestATunnelMovesBetweenBackends(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Userspace)
	s.up(t)
	for _, b := range []wireguard.Backend{wireguard.Kernel, wireguard.Userspace} {
		s.wantB.Tunnels[0].Backend = b
		s.b.converge(t, s.wantB)
		if got := s.b.observe(t).Tunnels[0].Backend; got != b {
			t.Errorf("b runs %s", got)
		}
		// Node a named the endpoint, so it is the one to start a session anew.
		s.a.driver.Stop()
		s.a.restart(t)
		s.a.down(t)
		s.a.converge(t, s.wantA)
		s.a.answers(t, "10.20.0.1")
	}
}

func TestAKernelTunnelWhosePortIsTakenLeavesNoLink(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	s.a.do(t, func() error {
		c, err := net.ListenPacket("udp4", ":51820")
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	})
	err := s.a.tryConverge(t, s.wantA)
	if err == nil || !strings.Contains(err.Error(), wireguard.ErrPortInUse.Error()) || !strings.Contains(err.Error(), "51820") {
		t.Errorf("error %v", err)
	}
	if got := s.a.observe(t); len(got.Tunnels) != 0 {
		t.Errorf("left behind: %+v", got)
	}
}

func TestDownRemovesAKernelTunnel(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	s.up(t)
	s.a.driver.Stop()
	s.a.restart(t)
	s.a.down(t)
	if got := s.a.observe(t); len(got.Tunnels) != 0 {
		t.Errorf("left behind: %+v", got)
	}
	if _, err := s.a.nl.LinkByName("fra1"); err == nil {
		t.Error("the link is there")
	}
	if _, err := os.Stat(s.wantA.Tunnels[0].PrivateKeyFile); err != nil {
		t.Errorf("the key file is gone: %v", err)
	}
	if clear, _ := s.seen(t); clear != 0 {
		t.Errorf("%d frames in clear", clear)
	}
}

const patience = 20 * time.Second
