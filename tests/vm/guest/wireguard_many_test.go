//go:build vmguest

package guest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/crypto/wireguard"
)

// crowded is what a wants with peers of every attribute, none of which answers: more than wgctrl sends in one message. The
// first of them has more prefixes than one message has room for as well.
func (s *site) crowded(t *testing.T, peers, prefixes int) wireguard.State {
	t.Helper()
	w := s.wantA.Tunnels[0]
	psk := w.Peers[0].PresharedKeyFile
	w.Peers, w.Routes = nil, nil
	for i := range peers {
		n := 1
		if i == 0 {
			n = prefixes
		}
		p := wireguard.Peer{
			Name: fmt.Sprint("peer-", i), PublicKey: newKey(t, fmt.Sprint("peer-", i)).public, PresharedKeyFile: psk,
			Endpoint: netip.MustParseAddrPort("198.18.0.2:51820"), Keepalive: time.Duration(10+i) * time.Second,
		}
		for j := range n {
			p.AllowedIPs = append(p.AllowedIPs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 50 + byte(i), byte(j >> 8), byte(j)}), 32))
		}
		w.Peers = append(w.Peers, p)
	}
	slices.SortFunc(w.Peers, func(a, b wireguard.Peer) int { return strings.Compare(a.PublicKey, b.PublicKey) })
	return wireguard.State{Tunnels: []wireguard.Tunnel{w}}
}

// greeted is how many of so many handshakes are tried when a daemon begins, before the kernel does it by itself.
func (s *site) greeted(t *testing.T, many int) (tried int) {
	t.Helper()
	_, before := s.seen(t)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.a.driver.Run(over); err != nil { // it looks once before it ends
		t.Fatal(err)
	}
	for deadline := time.Now().Add(4 * time.Second); tried < many && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { // it does after 5 s
		_, now := s.seen(t)
		tried = min(now-before, many)
	}
	return tried
}

func TestManyPeersOfAKernelTunnelKeepEveryAttribute(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	want := s.crowded(t, 40, 600)
	is := func(after string) {
		t.Helper()
		if diff := cmp.Diff(want, s.a.observe(t), equal); diff != "" {
			t.Errorf("after %s (-want +have):\n%s", after, diff)
		}
	}
	var greeted []int
	for len(greeted) < 3 && !slices.Contains(greeted, 40) { // a busy machine may be late
		s.a.down(t)
		s.a.converge(t, want)
		is("the peers were added and poked")
		greeted = append(greeted, s.greeted(t, 40))
		is("silent peers were greeted")
	}
	if !slices.Contains(greeted, 40) {
		t.Fatalf("%v handshakes are tried when 40 peers are greeted", greeted)
	}

	big := &want.Tunnels[0].Peers[slices.IndexFunc(want.Tunnels[0].Peers, func(p wireguard.Peer) bool { return p.Name == "peer-0" })]
	kept := big.AllowedIPs
	big.AllowedIPs = kept[:1]
	s.a.converge(t, want)
	is("prefixes were taken")
	big.AllowedIPs = kept
	s.a.converge(t, want)
	is("prefixes were given, and the peer poked")
}
