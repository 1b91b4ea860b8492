package host

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/tests/nstest"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// until reads events until one is as wanted, and returns all that were read.
func until(t *testing.T, events <-chan Event, wanted func(Event) bool) []Event {
	t.Helper()
	deadline := time.After(10 * time.Second)
	var seen []Event
	for {
		select {
		case e, open := <-events:
			if !open {
				t.Fatalf("the channel closed after %+v", seen)
			}
			seen = append(seen, e)
			if wanted(e) {
				return seen
			}
		case <-deadline:
			t.Fatalf("the event did not come in 10 s; seen: %+v", seen)
		}
	}
}

func TestWatchTellsOfLinksAndAddresses(t *testing.T) {
	inNamespace(t)
	h := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := h.Watch(ctx, func(Gone) {})
	if err != nil {
		t.Fatal(err)
	}
	ip(t, "link add eth0 type veth peer name tor0")
	until(t, events, func(e Event) bool { return e.Link == "eth0" && e.Exists && !e.Up })
	ip(t, "link set eth0 up")
	ip(t, "link set tor0 up")
	until(t, events, func(e Event) bool { return e.Link == "eth0" && e.Up && e.Carrier })
	ip(t, "link set tor0 down")
	until(t, events, func(e Event) bool { return e.Link == "eth0" && e.Up && !e.Carrier })
	ip(t, "link set eth0 mtu 1400")
	until(t, events, func(e Event) bool { return e.Link == "eth0" && e.MTU == 1400 })
	ip(t, "addr add 198.18.0.2/24 dev eth0")
	until(t, events, func(e Event) bool { return e.Link == "eth0" && e.Addresses })
	ip(t, "addr add 2001:db8::2/64 dev eth0")
	until(t, events, func(e Event) bool { return e.Link == "eth0" && e.Addresses })
	ip(t, "link del eth0")
	until(t, events, func(e Event) bool { return e.Link == "eth0" && !e.Exists })

	// Nobody reads while a link changes often: what comes then is short, and ends with how things are.
	ip(t, "link add eth1 type veth peer name tor1")
	for range 20 {
		ip(t, "link set eth1 up")
		ip(t, "link set eth1 down")
	}
	ip(t, "link set eth1 mtu 1333")
	seen := until(t, events, func(e Event) bool { return e.Link == "eth1" && e.MTU == 1333 && !e.Up })
	if n := len(slices.DeleteFunc(seen, func(e Event) bool { return e.Link != "eth1" })); n > 4 {
		t.Errorf("%d events of eth1 were not merged", n)
	}
	cancel()
	for range events { // ends, or the test does not
	}
}

func TestLostMessagesAreAResync(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &watcher{known: map[int]Event{2: {Index: 2, Exists: true}}, pending: []Event{{Index: 2, Exists: true}}}
	heard, out := make(chan []syscall.NetlinkMessage), make(chan Event)
	go w.run(ctx, heard, out, func() ([]netlink.Link, error) { return nil, unix.EIO })
	heard <- nil
	if e := <-out; e != (Event{Resync: true}) {
		t.Errorf("got %+v", e)
	}
}

func TestPendingEventsAreBounded(t *testing.T) {
	w := &watcher{known: map[int]Event{}}
	for i := range 3 * maxPending {
		w.merge(Event{Index: i})
		if len(w.pending) > maxPending {
			t.Fatalf("%d events wait", len(w.pending))
		}
	}
	if !w.pending[0].Resync {
		t.Errorf("the first event is %+v", w.pending[0])
	}
}

func TestFactsAndStatus(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	ip(t, "link set tor1 down")
	ip(t, "link set eth0 mtu 1400")
	ip(t, "addr add 198.18.0.2/24 dev eth0")
	ip(t, "addr add 2001:db8::2/64 dev eth0 nodad")
	ip(t, "link add far type veth peer name gone")
	h := open(t, t.TempDir())
	f, err := h.GatherFacts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.KernelRelease != strings.TrimSpace(run(t, "uname", "-r")) {
		t.Errorf("kernel release %q", f.KernelRelease)
	}
	facts := make(map[string]LinkFact)
	var names []string
	for _, l := range f.Links {
		facts[l.Name] = l
		names = append(names, l.Name)
	}
	if !slices.IsSorted(names) || len(names) != 7 {
		t.Errorf("links %v", names)
	}
	eth0 := facts["eth0"]
	linkLocal := slices.IndexFunc(eth0.Addresses, func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() })
	if linkLocal < 0 {
		t.Fatalf("no link-local address in %v", eth0.Addresses)
	}
	want := LinkFact{
		Name: "eth0", Index: eth0.Index, Kind: "veth", MTU: 1400, Up: true, Carrier: true, PeerHere: true,
		Addresses: []netip.Prefix{pfx("198.18.0.2/24"), pfx("2001:db8::2/64"), eth0.Addresses[linkLocal]},
	}
	if d := cmp.Diff(want, eth0, netipEqual); d != "" {
		t.Errorf("eth0 (- wanted, + got):\n%s", d)
	}
	if l := facts["eth1"]; !l.Up || l.Carrier {
		t.Errorf("eth1 without a carrier: %+v", l)
	}
	if l := facts["lo"]; l.Kind != "" || l.PeerHere || l.Index != 1 {
		t.Errorf("lo: %+v", l)
	}

	status, err := h.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(status, func(s InterfaceStatus) bool { return s.Name == "eth0" })
	s := status[i]
	// An interface of virtual wire says 10 Gbit/s.
	if s.MTU != 1400 || !s.Up || !s.Carrier || s.Driver != "veth" || s.SpeedMbps != 10000 || s.RxQueues < 1 || len(s.Addresses) != 3 || s.TX.Packets == 0 {
		t.Errorf("eth0: %+v", s)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	has(t, string(text), fmt.Sprintf(`{"name":"eth0","index":%d,"kind":"veth","mtu":1400,"up":true,"carrier":true,"speed_mbps":10000,"driver":"veth","rx_queues":%d,"addresses":["198.18.0.2/24","2001:db8::2/64"`, s.Index, s.RxQueues))
	has(t, string(text), `"rx":{"packets":`)
}

func TestPeerInAnotherNamespaceIsNotHere(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	h := open(t, t.TempDir())
	outside := nstest.New(t).FD()
	peer, err := netlink.LinkByName("tor0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsFd(peer, int(outside)); err != nil {
		t.Fatal(err)
	}
	f, err := h.GatherFacts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range f.Links {
		if want := strings.HasSuffix(l.Name, "1"); l.PeerHere != want {
			t.Errorf("%s: PeerHere is %v", l.Name, l.PeerHere)
		}
	}
}
