package ike

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"
)

// TestAThousandPeersAreLoadedOnceAndLookedAt logs what it takes; there is no limit that a busy machine could miss.
func TestAThousandPeersAreLoadedOnceAndLookedAt(t *testing.T) {
	t.Parallel()
	const n = 1000
	e := &end{space: newSpace(t)}
	e.charon = startCharon(t, e.space, userspace)
	e.client = New(e.charon.socket, slog.New(slog.DiscardHandler))
	until(t, "charon answers", func() bool { return e.client.Ping(t.Context()) == nil })
	psk := newKey(t)
	conns := make([]Conn, n)
	for i := range conns {
		conns[i] = example()
		c := &conns[i]
		c.Peer, c.SecretFile, c.RemoteID, c.LocalID = fmt.Sprintf("p%d", i), psk, fmt.Sprintf("p%d", i), "z"
		c.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}), 0)
		c.Prefixes = prefixes(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))
	}
	load := func(what string) {
		begun := time.Now()
		for _, c := range conns {
			if err := e.client.Load(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%s %d: %s", what, n, time.Since(begun))
	}
	load("load")
	load("load again")
	begun := time.Now()
	list, err := e.client.Loaded(t.Context())
	if err != nil || len(list) != n {
		t.Fatalf("%d are loaded, %v", len(list), err)
	}
	t.Logf("look: %s", time.Since(begun))
	for _, l := range list {
		if l.SecretFile != psk || l.Digest == "" {
			t.Fatalf("loaded %+v", l)
		}
	}
}
