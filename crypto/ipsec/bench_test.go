package ipsec

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"sluice/crypto/keys"
)

// thousand is a node that has 1,000 peers, all states in place.
func thousand(b *testing.B) (*node, *tunnel) {
	b.Helper()
	secret := filepath.Join(b.TempDir(), "master")
	if err := keys.GeneratePSK(secret); err != nil {
		b.Fatal(err)
	}
	n := &node{dir: b.TempDir(), now: noon}
	n.boot()
	w := wanted("fra1")
	w.Local, w.ReplayWindow = addrPort("198.18.0.1:0"), 1024
	for i := range 1000 {
		name := fmt.Sprint("p", i)
		w.Peers = append(w.Peers, Peer{Name: name, ID: name, SecretFile: secret,
			Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}), 0)})
	}
	t := n.register(w)
	n.seen.states = map[owner][]sa{}
	for _, p := range t.peers {
		var err error
		if p.directions, p.derived, err = p.derive(t.want, p.want); err != nil {
			b.Fatal(err)
		}
		p.standing, p.Sent, p.used, p.live, p.Heard, p.since = true, 70, 70, 70, 80, noon
		o := owner{t.ifID, p.reqid}
		for _, e := range window(p.Heard) {
			n.seen.states[o] = append(n.seen.states[o], t.receiving(p, e))
		}
		s := t.sending(p)
		s.spi = p.directions.send.spi(70)
		n.seen.states[o] = append(n.seen.states[o], s)
	}
	return n, t
}

func BenchmarkOneInspectionOfAThousandPeers(b *testing.B) {
	n, t := thousand(b)
	for b.Loop() {
		if err := n.keep(t); err != nil {
			b.Fatal(err)
		}
		n.quiet(t)
	}
}

func BenchmarkDerivingForAThousandPeersAgain(b *testing.B) {
	_, t := thousand(b)
	for b.Loop() {
		for _, p := range t.peers {
			if _, _, err := p.derive(t.want, p.want); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkReadingFiveThousandStates(b *testing.B) {
	info := &nl.XfrmUsersaInfo{Family: 2}
	m := info.Serialize()
	for kind, size := range map[int]int{nl.XFRMA_ALG_AEAD: 108, nl.XFRMA_REPLAY_ESN_VAL: 24 + 128, nl.XFRMA_IF_ID: 4, nl.XFRMA_LASTUSED: 8, nl.XFRMA_ALG_AUTH: 72} {
		m = append(m, nl.NewRtAttr(kind, make([]byte, size)).Serialize()...)
	}
	for b.Loop() {
		for range 5000 {
			if _, err := parseState(m); err != nil {
				b.Fatal(err)
			}
		}
	}
}
