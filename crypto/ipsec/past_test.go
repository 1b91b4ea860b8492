package ipsec

import (
	"encoding/base64"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secret writes a file with a key that is all one byte.
func secret(t *testing.T, dir string, fill byte) string {
	t.Helper()
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune(fill)), 32)))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestWhoHasOtherKeysHasAnotherPast(t *testing.T) {
	n := newNode(t)
	x := n.register(wanted("fra1", "b"))
	p := x.peers["b"]
	for _, step := range []struct {
		what          string
		local, remote string
		fill          byte
		heard         uint64
	}{
		{"the first keys", "self", "b", 'x', 77}, // the file of an earlier version knows no tag
		{"the same", "self", "b", 'x', 77},
		{"another peer", "self", "c", 'x', 0},
		{"another name of this end", "me", "c", 'x', 0},
		{"another secret", "me", "c", 'y', 0},
		{"the same", "me", "c", 'y', 77},
	} {
		p.Heard, p.received, p.lastHeard = 77, 5, noon
		w := Peer{Name: "b", ID: step.remote, SecretFile: secret(t, n.dir, step.fill)}
		derived, from, err := p.derive(Tunnel{ID: step.local}, w)
		if err != nil {
			t.Fatal(err)
		}
		before := ear{tunnel: "fra1", peer: "b", heard: 77}
		if p.directions != nil {
			before.direction = p.directions.receive
		}
		x.key(p, derived, from)
		if p.Heard != step.heard || (p.received == 0) != (step.heard == 0) || p.lastHeard.IsZero() != (step.heard == 0) {
			t.Errorf("%s: %+v", step.what, p)
		}
		if step.heard != 0 {
			continue
		}
		p.standing = true
		if err := n.heard(before, 78); err != nil || p.Heard != 0 {
			t.Errorf("%s: an epoch of the former keys is believed: %d, %v", step.what, p.Heard, err)
		}
	}
	if err := n.save(); err != nil {
		t.Fatal(err)
	}
	tag := p.Tag
	n.boot()
	if got := n.tunnels["fra1"].peers["b"]; got.Tag != tag || tag == 0 {
		t.Errorf("the disk knows tag %#x, want %#x", got.Tag, tag)
	}
}

func TestAPeerWhoseKeysCannotBeHadIsToldOfOncePerCause(t *testing.T) {
	n := newNode(t)
	var log strings.Builder
	n.log = slog.New(slog.NewTextHandler(&log, nil))
	w := wanted("fra1", "b")
	w.Peers[0].SecretFile = filepath.Join(n.dir, "key")
	x := n.register(w)
	p := x.peers["b"]
	o := owner{x.ifID, p.reqid}
	look := func(warnings int, why string) {
		t.Helper()
		n.observePeer(x, o, nil)
		if s := n.peerStatus(x, p); strings.Count(log.String(), "level=WARN") != warnings || !strings.Contains(s.Why, why) || (why == "") != (s.Why == "") {
			t.Errorf("why %q, log:\n%s", s.Why, log.String())
		}
	}
	look(1, "does not exist")
	look(1, "does not exist")
	secret(t, n.dir, 'x')
	look(1, "")
	if err := os.Chmod(w.Peers[0].SecretFile, 0o644); err != nil {
		t.Fatal(err)
	}
	p.directions = nil // another process
	look(2, w.Peers[0].SecretFile)
	if err := os.Remove(w.Peers[0].SecretFile); err != nil {
		t.Fatal(err)
	}
	look(3, "does not exist")
}

func TestAPeerThatIsRemovedLeavesItsIdentityToAnotherTunnel(t *testing.T) {
	n := newNode(t)
	n.charons = newCharons(n.log)
	a, b := wanted("ams1", "x", "y"), wanted("fra1", "x")
	a.Keying, b.Keying = IKE, IKE
	x, y := n.register(a), n.register(b)
	if err := n.sameIdentities(y, b.Peers[0]); err == nil {
		t.Error("two pairs of the same identities are taken")
	}
	if err := n.removePeer(t.Context(), "ams1", "x"); err != nil {
		t.Fatal(err)
	}
	if err := n.sameIdentities(y, b.Peers[0]); err != nil {
		t.Error(err)
	}
	if len(a.Peers) != 2 || len(x.want.Peers) != 1 || x.want.Peers[0].Name != "y" {
		t.Errorf("the plan has %v, the driver %v", a.Peers, x.want.Peers)
	}
}

func TestAPortThatCannotBeHeldConcernsItsTunnelAlone(t *testing.T) {
	n := newNode(t)
	n.opts.Holder = []string{"/bin/sh", "-c", "exit 3"}
	udp, other := wanted("ams1", "x"), wanted("fra1", "x")
	udp.Encapsulation, udp.Local = UDP, netip.MustParseAddrPort("192.0.2.1:4500")
	other.Local = udp.Local
	n.register(udp)
	n.register(other)
	if err := n.holdPort(udp); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v", err)
	}
	if err := n.holdPort(other); err != nil {
		t.Errorf("a tunnel without a port hears %v", err)
	}
	third := udp
	third.Name, third.Local = "par1", netip.MustParseAddrPort("192.0.2.1:4501")
	if err := n.holdPort(third); err != nil {
		t.Errorf("a tunnel with another port hears %v", err)
	}
}
