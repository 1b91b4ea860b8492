package bfd_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/bgp/bfd"
	"sluice/tests/nstest"
)

// A peer that is not there is played by hand, so that what is believed changes the state at once.
func TestWhatIsForgedIsNotBelieved(t *testing.T) {
	t.Parallel()
	const theirs = 4711
	for path := range paths {
		t.Run(path, func(t *testing.T) {
			s := newSite(t)
			s.set(t, session(path, 10*time.Second)) // once up, it is to be told to go down before it finds its peer silent
			mine := s.only(t).Discriminator

			s.forge(t, path, 254, bfd.Init, theirs, mine)
			s.forge(t, path, 254, bfd.Down, theirs, 0)
			s.discards(t, "ttl", 2)
			s.forge(t, path, 255, bfd.Init, theirs, mine+1)
			s.discards(t, "unknown-session", 1)
			s.forge(t, path, 255, bfd.Init, theirs, 0)
			s.discards(t, "not-down", 1)
			s.forge(t, path, 255, bfd.Init, 0, mine)
			s.discards(t, "zero-discriminator", 1)
			s.send(t, paths[path].peers, paths[path].ours, 255, []byte("too short"))
			s.discards(t, "length", 1)
			if st := s.only(t); st.State != bfd.Down || st.Received != 0 {
				t.Errorf("%s after %d believed packets", st.State, st.Received)
			}
			// The positive control: the same packet, true.
			s.forge(t, path, 255, bfd.Init, theirs, mine)
			s.becomes(t, bfd.Up)
			s.forge(t, path, 255, bfd.Down, theirs, mine)
			s.becomes(t, bfd.Down)
			if st := s.only(t); st.Diag != bfd.NeighborDown || st.Failures != 1 {
				t.Errorf("told to go down: %q, %d failures", st.Diag, st.Failures)
			}
		})
	}
}

func TestASessionIsItsPeersAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.set(t, session("IPv4", time.Second))
	mine := s.only(t).Discriminator
	s.peers.Address(t, link, "198.18.0.3/24")
	s.send(t, "198.18.0.3", "198.18.0.2", 255, control(bfd.Init, 4711, mine))
	s.discards(t, "wrong-peer", 1)
	s.send(t, "198.18.0.3", "198.18.0.2", 255, control(bfd.Down, 4711, 0))
	s.discards(t, "unknown-session", 1)
	if st := s.only(t); st.State != bfd.Down || st.Received != 0 {
		t.Errorf("%s after %d believed packets", st.State, st.Received)
	}
}

func TestASessionWaitsForItsAddressAndItsInterface(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	nstest.StartBird(t, s.peers, birdConfig(base))
	s.set(t, session("IPv4", base), session("IPv6 link-local", base))
	s.becomes(t, bfd.Up)
	l, err := s.ours.LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ours.LinkDel(l); err != nil {
		t.Fatal(err)
	}
	s.becomes(t, bfd.Down)
	nstest.Eventually(t, patience, func() string {
		for _, st := range s.status(t) {
			if st.Error == "" {
				return st.Peer.String() + " says nothing of what it cannot send"
			}
		}
		return ""
	})
	nstest.Veth(t, s.ours, link, s.peers, link)
	s.ours.Address(t, link, "198.18.0.2/24", "2001:db8:1::2/64", "fe80::2/64")
	s.peers.Address(t, link, "198.18.0.1/24", "2001:db8:1::1/64", "fe80::1/64")
	s.becomes(t, bfd.Up)
}

func TestAPortInUseAndABadSessionAreTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := nstest.Call[any](t, s.server, "listen", nil); err == nil || !strings.Contains(err.Error(), "stop the other BFD daemon") {
		t.Errorf("a second listener: %v", err)
	}
	s.set(t, session("IPv4", time.Second))
	mine := s.only(t).Discriminator
	for want, spoil := range map[string]func(c *bfd.Config){
		"interval":            func(c *bfd.Config) { c.MinTx = time.Millisecond },
		"multiplier 0":        func(c *bfd.Config) { c.Multiplier = 0 },
		"another family":      func(c *bfd.Config) { c.Local = netip.MustParseAddr("2001:db8::1") },
		"needs its interface": func(c *bfd.Config) { c.Local, c.Peer = netip.Addr{}, netip.MustParseAddr("fe80::1") },
		"one neighbor":        func(c *bfd.Config) { c.Peer = netip.MustParseAddr("224.0.0.1") },
		"twice":               func(*bfd.Config) {},
	} {
		bad := session("IPv4", time.Second)
		spoil(&bad)
		_, err := nstest.Call[any](t, s.server, "set", []bfd.Config{session("IPv4", 2*time.Second), bad})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q: %v", want, err)
		}
	}
	if st := s.only(t); st.Discriminator != mine || st.State != bfd.Down {
		t.Errorf("a refused set has changed %+v", st)
	}
}
