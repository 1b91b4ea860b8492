package bgp

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

func TestAPasswordFileIsReadOnlyWhenNobodyElseCan(t *testing.T) {
	const secret = "tell nobody"
	cases := []struct {
		name, contents string
		mode           os.FileMode
		want, err      string
	}{
		{"a line end is not part of the key", secret + "\r\n", 0o600, secret, ""},
		{"no line end", secret, 0o400, secret, ""},
		{"spaces are part of the key", " " + secret + " \n", 0o600, " " + secret + " ", ""},
		{"readable by the group", secret, 0o640, "", "has mode 0640, so others can read it: chmod 600"},
		{"readable by others", secret, 0o604, "", "has mode 0604"},
		{"empty", "\n", 0o600, "", "want a key of 1 to 80 bytes"},
		{"the longest", strings.Repeat("k", 80) + "\r\n", 0o600, strings.Repeat("k", 80), ""},
		{"too long", strings.Repeat(secret, 9), 0o600, "", "want a key of 1 to 80 bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(file, []byte(c.contents), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, c.mode); err != nil {
				t.Fatal(err)
			}
			got, err := readPassword(file)
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			said := fmt.Sprint(err)
			if (err == nil) != (c.err == "") || !strings.Contains(said, c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if strings.Contains(said, secret) {
				t.Errorf("the error tells the key: %v", err)
			}
		})
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/nowhere/key": "/nowhere/key: no such file", t.TempDir(): "is no regular file", pipe: "is no regular file",
	} {
		if _, err := readPassword(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if got, err := readPassword(""); got != "" || err != nil {
		t.Errorf("no file: %q, %v", got, err)
	}
}

func TestANeighborThatCannotWorkIsRefused(t *testing.T) {
	good := Neighbor{Name: "tor-a", Address: netip.MustParseAddr("198.18.0.1"), ASN: 65000, IPv4: true}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Neighbor){
		"want an IPv4 or IPv6 address":        func(n *Neighbor) { n.Address = netip.Addr{} },
		"::ffff:198.18.0.1":                   func(n *Neighbor) { n.Address = netip.MustParseAddr("::ffff:198.18.0.1") },
		"its asn is missing":                  func(n *Neighbor) { n.ASN = 0 },
		"no address family":                   func(n *Neighbor) { n.IPv4 = false },
		"needs an IPv6 next hop":              func(n *Neighbor) { n.IPv6 = true },
		"hold time 2s: want 3s to 65535s":     func(n *Neighbor) { n.HoldTime = 2 * time.Second },
		"restart time 2h0m0s: want at most 4": func(n *Neighbor) { n.RestartTime = 2 * time.Hour },
	} {
		n := good
		change(&n)
		if err := n.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", n, err, want)
		}
	}
}

func TestEventsNeverBlockAndKeepTheNewest(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler), Options{})
	tor, now := Neighbor{Name: "tor-a", Address: netip.MustParseAddr("198.18.0.1")}, time.Now()
	s.sessions.add(tor)
	states := []bgp.FSMState{bgp.BGP_FSM_ACTIVE, bgp.BGP_FSM_OPENSENT, bgp.BGP_FSM_OPENCONFIRM, bgp.BGP_FSM_ESTABLISHED}
	for range eventBuffer {
		for _, state := range states {
			s.sessions.state(tor.Address, state, now, "")
		}
		s.sessions.state(tor.Address, bgp.BGP_FSM_IDLE, now, "hold-timer-expired")
	}
	s.sessions.state(netip.MustParseAddr("198.18.9.9"), bgp.BGP_FSM_ESTABLISHED, now, "") // not ours
	if got := s.DroppedEvents(); got != eventBuffer {
		t.Errorf("%d events dropped, want %d", got, eventBuffer)
	}
	for i := range eventBuffer {
		e := <-s.Events()
		if want := i%2 == 0; e.Up != want || e.Neighbor != "tor-a" || (e.Reason == "") != want {
			t.Fatalf("event %d: %+v, want up %t", i, e, want)
		}
	}
	if got := s.sessions.shown(tor.Address).error; got != "Hold Timer Expired" {
		t.Errorf("last error %q", got)
	}
}

func TestTheSweepWaitsForEveryEndOfRIB(t *testing.T) {
	swept := 0
	s := newSweeper(func() { swept++ }, func() bool { return true })
	defer s.stop()
	a, b := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.18.1.1")
	s.expect(a, []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC})
	s.expect(b, []bgp.Family{bgp.RF_IPv4_UC})
	for _, step := range []struct {
		what string
		do   func()
		want int
	}{
		{"one family of two", func() { s.received(a, bgp.RF_IPv4_UC) }, 0},
		{"the same again", func() { s.received(a, bgp.RF_IPv4_UC) }, 0},
		{"the other family", func() { s.received(a, bgp.RF_IPv6_UC) }, 0},
		{"a removed neighbor", func() { s.forget(b) }, 1},
		{"later ones", func() { s.expect(b, []bgp.Family{bgp.RF_IPv4_UC}); s.received(b, bgp.RF_IPv4_UC) }, 1},
	} {
		if step.do(); swept != step.want {
			t.Errorf("after %s: swept %d times, want %d", step.what, swept, step.want)
		}
	}
}

// GoBGP makes a line of each UPDATE where somebody listens.
func TestUpdatesAreHeardWhereSomethingIsToBeSwept(t *testing.T) {
	kept := false
	s := newSweeper(func() {}, func() bool { return kept })
	defer s.stop()
	to := tap{Handler: slog.DiscardHandler, tally: newTally(nil), sweep: s}
	if !to.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("what becomes of attempts to connect is not heard")
	}
	to.tally.up.Store(true)
	for _, kept = range []bool{false, true} {
		if is := to.Enabled(t.Context(), slog.LevelDebug); is != kept {
			t.Errorf("routes of an earlier life: %t, UPDATEs are heard: %t", kept, is)
		}
	}
	if s.sweep(); to.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("UPDATEs are heard when all is swept")
	}
}

func TestGoBGPsChatterIsDebug(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(tap{Handler: slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})}).With("a", 1).WithGroup("g")
	log.Info("each step")
	log.Warn("trouble", "b", 2)
	if got := out.String(); strings.Contains(got, "each step") || !strings.Contains(got, `level=WARN msg=trouble a=1 g.b=2`) {
		t.Errorf("logged %s", got)
	}
}
