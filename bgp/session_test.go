package bgp_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

// status is the first neighbor's.
func status(t *testing.T, c *nstest.Child) bgp.NeighborStatus {
	t.Helper()
	return nstest.Must[[]bgp.NeighborStatus](t, c, "status", nil)[0]
}

// uptime is since when BIRD's session is what it is.
func uptime(t *testing.T, b *nstest.Bird) time.Time {
	t.Helper()
	for _, line := range strings.Split(b.Do(t, "show protocols sluice"), "\n") {
		if f := strings.Fields(line); len(f) > 4 && f[0] == "sluice" {
			since, err := time.Parse("15:04:05.000", f[4])
			if err != nil {
				t.Fatal(err)
			}
			return since
		}
	}
	t.Fatal("BIRD knows no protocol sluice")
	return time.Time{}
}

// another says whether two sessions are two: what BIRD prints of one moves by a millisecond, and a new one takes half a second.
func another(a, b time.Time) bool { return a.Sub(b).Abs() > 100*time.Millisecond }

// lastError is what BIRD says went wrong last.
func lastError(t *testing.T, b *nstest.Bird) string {
	t.Helper()
	_, after, _ := strings.Cut(b.Do(t, "show protocols all sluice"), "Last error:")
	line, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(line)
}

// says waits until BIRD's session shows the text.
func says(t *testing.T, b *nstest.Bird, text string) {
	t.Helper()
	nstest.Eventually(t, 20*time.Second, func() string {
		if got := b.Do(t, "show protocols all sluice"); !strings.Contains(got, text) {
			return "BIRD does not say " + text + ":\n" + got
		}
		return ""
	})
}

func TestANeighborHearsWhetherItComesAnewOrGoes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("tell nobody"), 0o600); err != nil {
		t.Fatal(err)
	}
	tors := []*nstest.Bird{s.tor(t, 0, ""), s.tor(t, 1, `password "tell nobody";`)}
	gw := s.gw.Child(t, fresh)
	want := gateway(2)
	want.Neighbors[1].PasswordFile = key
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b")
	hear := func(code string) {
		t.Helper()
		for _, b := range tors {
			nstest.Eventually(t, 10*time.Second, func() string {
				if got := b.Log(t); !strings.Contains(got, "sluice: Received: "+code) {
					return got
				}
				return ""
			})
		}
	}
	want.Neighbors[0].HoldTime, want.Neighbors[1].HoldTime = 12*time.Second, 12*time.Second
	apply(t, gw, want)
	hear("Other configuration change")
	established(t, gw, "tor-a", "tor-b")
	apply(t, gw, gateway(0))
	hear("Peer de-configured")
	for _, b := range tors {
		if got := b.Log(t); strings.Contains(got, "Administrative shutdown") {
			t.Error(got)
		}
	}
}

func TestAShutdownTellsItsReasonAndEndsWithoutTouchingTheOther(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	a, b := s.tor(t, 0, ""), s.tor(t, 1, "")
	gw := s.gw.Child(t, fresh)
	want := gateway(2, path("203.0.113.0/24"))
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b")
	since := uptime(t, b)

	want.Neighbors[0].Shutdown, want.Neighbors[0].Reason = true, "fibre works, back at 06:00"
	if got := apply(t, gw, want); fmt.Sprint(got) != "[change neighbor tor-a (198.18.0.1): shut down, reason of a shutdown]" {
		t.Errorf("steps %q", got)
	}
	says(t, a, "Message:        fibre works, back at 06:00")
	nstest.Eventually(t, 10*time.Second, func() string { // the speaker ends the session beside the step
		if st := status(t, gw); st.State != "idle" || st.Down != "shutdown" || st.Flaps != 1 || st.LastError != `sent Cease: Administrative Shutdown ("fibre works, back at 06:00")` {
			return fmt.Sprintf("status %+v", st)
		}
		return ""
	})
	if _, err := nstest.Call[any](t, gw, "clear", clearing{Name: "tor-a"}); err == nil || !strings.Contains(err.Error(), "tor-a is shut down by the configuration") {
		t.Errorf("clear: %v", err)
	}
	hears(t, b, "203.0.113.0/24")
	if now := uptime(t, b); another(now, since) {
		t.Errorf("tor-b's session is of %s, and was of %s", now, since)
	}

	// What is down from the beginning stays down, and comes up when the file says so.
	apply(t, gw, gateway(0))
	apply(t, gw, want)
	stays(t, gw, "tor-a", "idle")
	want.Neighbors[0].Shutdown = false
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b")
	hears(t, a, "203.0.113.0/24")
}

func TestTheNeighborsReasonIsShownHarmless(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := s.tor(t, 0, "")
	gw := s.gw.Child(t, fresh)
	apply(t, gw, gateway(1, path("203.0.113.0/24")))
	hears(t, bird, "203.0.113.0/24")
	// The path and End-of-RIB of both families: anything sent after BIRD has closed would reset the connection, and the
	// notification with it.
	nstest.Eventually(t, 10*time.Second, func() string { return nstest.Want("updates sent", status(t, gw).Sent.Update, 3) })
	bird.Do(t, "disable sluice \"new line card \x1b[31m at noon\"")
	nstest.Eventually(t, 10*time.Second, func() string {
		return nstest.Want("last error", status(t, gw).LastError, `received Cease: Administrative Shutdown ("new line card ?[31m at noon")`)
	})
	st := status(t, gw)
	if n := st.Notification; n == nil || n.Sent || n.Code != 6 || n.Subcode != 2 || n.Text != "new line card ?[31m at noon" || st.Received.Notification != 1 {
		t.Errorf("notification %+v of %+v", n, st.Received)
	}
	said(t, gw, "up tor-a, down tor-a")
	bird.Do(t, "enable sluice")
	established(t, gw, "tor-a")
	said(t, gw, "up tor-a") // status knows of the session a moment before the error is forgotten
	if st := status(t, gw); st.LastError != "" || st.Flaps != 1 || st.Sent.Open < 1 || st.Sent.Keepalive < 1 || st.HoldSeconds != 9 || st.KeepaliveSeconds != 3 ||
		st.RouterID != "198.18.0.1" || st.LocalAddress != addr("198.18.0.2") {
		t.Errorf("once it is up again: %+v", st)
	}
}

func TestWhatNeedsNoNewSessionGetsNone(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	a, b := s.tor(t, 0, "", "192.0.2.0/24"), s.tor(t, 1, "")
	gw := s.gw.Child(t, fresh)
	want := gateway(2, path("203.0.113.0/24"), path("2001:db8:100::/48"))
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b")
	hears(t, a, "203.0.113.0/24", "2001:db8:100::/48")
	hears(t, b, "203.0.113.0/24", "2001:db8:100::/48")
	sinceA, sinceB := uptime(t, a), uptime(t, b)
	cameUp(t, gw, "tor-a", "tor-b")

	s.gw.Address(t, "up0", "198.18.0.22/24", "2001:db8:1::22/64")
	n := &want.Neighbors[0]
	for what, change := range map[string]func(){
		"name": func() { n.Name = "tor-0" }, "limit": func() { n.Limit = bgp.PrefixLimit{Max: 50, WarnAt: 10} },
		"warning alone": func() { n.Limit.Warn = true }, "keepalive": func() { n.Keepalive = 2 * time.Second },
		"retry": func() { n.ConnectRetry = 7 * time.Second }, "reason": func() { n.Reason = "later" }, "failover": func() { n.FallOver = true },
		"next hops": func() { n.NextHop4, n.NextHop6 = addr("198.18.0.22"), addr("2001:db8:1::22") },
	} {
		change()
		if steps := apply(t, gw, want); len(steps) != 1 || !strings.HasPrefix(steps[0], "change neighbor") {
			t.Errorf("%s: %q", what, steps)
		}
	}
	has(t, a, "203.0.113.0/24", "BGP.next_hop: 198.18.0.22")
	has(t, a, "2001:db8:100::/48", "BGP.next_hop: 2001:db8:1::22")
	has(t, b, "203.0.113.0/24", "BGP.next_hop: 198.18.1.2")
	nstest.Must[any](t, gw, "clear", clearing{Name: "tor-0", Soft: true})
	hears(t, a, "203.0.113.0/24", "2001:db8:100::/48")

	// What does need one leaves the other neighbor its own.
	n.Passive = true
	apply(t, gw, want)
	nstest.Must[any](t, gw, "clear", clearing{Name: "tor-0"})
	established(t, gw, "tor-0", "tor-b")
	if now := uptime(t, a); !another(now, sinceA) {
		t.Errorf("neither a new mode nor a reset made a new session: since %s", now)
	}
	if now := uptime(t, b); another(now, sinceB) {
		t.Errorf("tor-b's session is of %s, and was of %s", now, sinceB)
	}
	await(t, gw, func(got string) string { // status knows of a session a moment before it is told
		if strings.Contains(got, "tor-b") {
			t.Fatalf("events: %s", got)
		}
		if !strings.HasPrefix(got, "down tor-0, ") {
			return "events: " + got
		}
		return ""
	})
}

func TestPassiveOnEitherSide(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.tor(t, 0, "")
	s.tor(t, 1, "passive on;")
	gw := s.gw.Child(t, fresh)
	want := gateway(2)
	want.Neighbors[0].Passive = true
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b")
	// With both passive nobody dials.
	want.Neighbors[1].Passive = true
	apply(t, gw, want)
	stays(t, gw, "tor-b", "active")
}

// stays fails when the neighbor is, within three dials of GoBGP's, in another state than this one.
func stays(t *testing.T, gw *nstest.Child, name, state string) {
	t.Helper()
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, n := range nstest.Must[[]bgp.NeighborStatus](t, gw, "status", nil) {
			if n.Name == name && n.State == "established" {
				t.Fatalf("%s is %s, want %s", name, n.State, state)
			}
		}
	}
}

// listening are the TCP ports of a namespace that anybody listens on.
func (s *site) listening(t *testing.T) (ports []string) {
	t.Helper()
	s.gw.Do(t, func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			for _, line := range strings.Split(string(text), "\n") {
				const listens = "0A"
				if f := strings.Fields(line); len(f) > 3 && f[3] == listens {
					ports = append(ports, f[1][strings.LastIndex(f[1], ":")+1:])
				}
			}
		}
		return nil
	})
	slices.Sort(ports)
	return slices.Compact(ports)
}

// GoBGP as a daemon of its own is told what to do by gRPC, on a port that knows no password.
func TestASpeakerListensForNeighborsAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	gw := s.gw.Child(t, fresh)
	apply(t, gw, gateway(1))
	if got := s.listening(t); !slices.Equal(got, []string{"00B3"}) { // 179
		t.Errorf("ports %q are open", got)
	}
	apply(t, gw, bgp.State{})
	nstest.Eventually(t, 10*time.Second, func() string { return nstest.Want("ports", len(s.listening(t)), 0) })
}
