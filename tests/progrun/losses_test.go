package progrun_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"sluice/xdp/classify"
	"sluice/xdp/pin"
	"sluice/xdp/xsk"
)

func TestBypassCountsWhatDoesNotFit(t *testing.T) {
	large := ether(typeIP4, ip4(17, nil, udp(4000, 53, make([]byte, 1900)...))) // of a chunk of 2048, 256 bytes are headroom
	for _, c := range []struct {
		name       string
		fill, ring int
		frame      []byte
		arrive     int
		lost       xsk.Losses
	}{
		{"two frames in the fill ring", 2, 64, dnsQuery(), 2, xsk.Losses{NoFrame: 8}},
		{"room for two in the receive ring", 64, 2, dnsQuery(), 2, xsk.Losses{RingFull: 8}},
		{"frames larger than a chunk", 64, 64, large, 0, xsk.Losses{NoFrame: 10}},
	} {
		s := newSite(t, bypassGeneration(xsk.Socket{Name: "dns", Interfaces: []string{"uplink"}}))
		for _, name := range []string{"uplink", "tor"} {
			l, err := netlink.LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetMTU(l, 2000); err != nil {
				t.Fatal(err)
			}
		}
		consumer := s.bindRing(t, s.path(t), c.fill, c.ring, 0)
		if err := sendFrames(ifindex(t, "tor"), c.frame, 10); err != nil {
			t.Fatal(err)
		}
		s.awaitCounters(t, 10)
		got, lost := consumer.receive(t, c.arrive), s.awaitLosses(t, c.lost)
		if len(got) != c.arrive || lost != c.lost {
			t.Errorf("%s: %d of 10 frames arrived, lost: %+v", c.name, len(got), lost)
		}
	}
}

// awaitLosses returns the losses of the one socket once they are what is wanted, or after five seconds.
func (s *site) awaitLosses(t *testing.T, want xsk.Losses) xsk.Losses {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		sockets, err := s.Sockets(t.Context())
		if err != nil || len(sockets) != 1 {
			t.Fatalf("sockets %+v: %v", sockets, err)
		}
		if sockets[0].Lost == want || time.Now().After(deadline) {
			return sockets[0].Lost
		}
	}
}

func TestASocketOfAnotherQueueLosesPacketsVisibly(t *testing.T) {
	s := newSite(t, bypassGeneration(xsk.Socket{Name: "dns", Interfaces: []string{"uplink"}}))
	path := s.path(t)
	addVeth(t, "second", "far")
	elsewhere := &site{uplink: ifindex(t, "second")}
	elsewhere.bind(t, path, 64, 0) // bound to an interface that the door is not of
	if err := sendFrames(ifindex(t, "tor"), dnsQuery(), 3); err != nil {
		t.Fatal(err)
	}
	want := xsk.Losses{WrongPlace: 3}
	if lost := s.awaitLosses(t, want); lost != want {
		t.Errorf("lost: %+v", lost)
	}
}

// TestWithTheLastSocketNobodyCountsLosses: the program at the tracepoint goes as well.
func TestWithTheLastSocketNobodyCountsLosses(t *testing.T) {
	s := newSite(t, bypassGeneration(xsk.Socket{Name: "dns", Interfaces: []string{"uplink"}}))
	dir := pin.At(s.dir)
	pins := []string{dir.TracePath("xdp_redirect_err-v1"), dir.StateMapPath("socket-losses", 2)}
	for _, pinned := range pins {
		if _, err := os.Stat(pinned); err != nil {
			t.Fatal(err)
		}
	}
	s.load(t, generation(classify.Drop))
	for _, pinned := range pins {
		if _, err := os.Stat(pinned); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", pinned, err)
		}
	}
	s.load(t, bypassGeneration(xsk.Socket{Name: "dns", Interfaces: []string{"uplink"}}))
	s.path(t) // and is counted again
}

// TestLossesAreCountedWhereTheyAreRead: a program at the tracepoint that another version left has counters of its own.
func TestLossesAreCountedWhereTheyAreRead(t *testing.T) {
	g := bypassGeneration(xsk.Socket{Name: "dns", Interfaces: []string{"uplink"}})
	s := newSite(t, g)
	if err := os.Remove(pin.At(s.dir).StateMapPath("socket-losses", 2)); err != nil {
		t.Fatal(err)
	}
	g.Ingress.Default = classify.Accept // another generation, with the same door
	s.load(t, g)
	s.bind(t, s.path(t), 0, 0)
	if err := sendFrames(ifindex(t, "tor"), dnsQuery(), 3); err != nil {
		t.Fatal(err)
	}
	want := xsk.Losses{NoFrame: 3}
	if lost := s.awaitLosses(t, want); lost != want {
		t.Errorf("lost: %+v", lost)
	}
}

// TestLossesThatNobodyCountsAreNotShownAsNone: the rest works where the tracepoint is not to be had.
func TestLossesThatNobodyCountsAreNotShownAsNone(t *testing.T) {
	s := newSite(t, generation(classify.Drop))
	if err := os.Mkdir(pin.At(s.dir).TracePath("xdp_redirect_err-v1"), 0o700); err != nil { // in the place of its pin
		t.Fatal(err)
	}
	s.load(t, bypassGeneration(xsk.Socket{Name: "dns", Interfaces: []string{"uplink"}}))
	sockets, err := s.Sockets(t.Context())
	if err != nil || len(sockets) != 1 || sockets[0].Counted {
		t.Errorf("sockets %+v: %v", sockets, err)
	}
}

// TestACounterOfAnotherVersionIsReplaced: its program would count by the old code, into the same counters.
func TestACounterOfAnotherVersionIsReplaced(t *testing.T) {
	g := bypassGeneration(xsk.Socket{Name: "dns", Interfaces: []string{"uplink"}})
	s := newSite(t, g)
	dir := pin.At(s.dir)
	path := dir.TracePath("xdp_redirect_err-v1")
	counters, err := ebpf.LoadPinnedMap(dir.StateMapPath("socket-losses", 2), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer counters.Close()
	former, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "lost_00000000", Type: ebpf.RawTracepoint, License: "GPL",
		Instructions: asm.Instructions{asm.LoadMapPtr(asm.R1, counters.FD()), asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer former.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "xdp_redirect_err", Program: former})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), l.Pin(path), l.Close()); err != nil {
		t.Fatal(err)
	}
	g.Ingress.Default = classify.Accept // another generation, with the same door
	s.load(t, g)
	l, err = link.LoadPinnedLink(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil || info.Program == id(t, former) {
		t.Errorf("the former program still counts: %+v, %v", info, err)
	}
	s.bind(t, s.path(t), 0, 0)
	if err := sendFrames(ifindex(t, "tor"), dnsQuery(), 3); err != nil {
		t.Fatal(err)
	}
	if want, lost := (xsk.Losses{NoFrame: 3}), s.awaitLosses(t, xsk.Losses{NoFrame: 3}); lost != want {
		t.Errorf("lost: %+v", lost)
	}
}
