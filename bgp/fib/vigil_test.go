package fib_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/bgp/fib"
	"sluice/tests/nstest"
)

// told are the links that the kernel has said to be without carrier, since the last reset.
type told struct {
	mu    sync.Mutex
	links map[string]bool
	alias string // of up2, as it was told last
}

func (o *told) has(link string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.links[link]
}

// catchUp waits until everything was heard that was told up to now.
func (o *told) catchUp(t *testing.T, ns *nstest.NS, mark string) {
	t.Helper()
	link, err := ns.LinkByName("up2")
	do(t, err)
	do(t, ns.LinkSetAlias(link, mark))
	nstest.Eventually(t, 10*time.Second, func() string {
		o.mu.Lock()
		defer o.mu.Unlock()
		return nstest.Want("alias", o.alias, mark)
	})
}

func (o *told) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.links = map[string]bool{}
}

func listen(t *testing.T, ns *nstest.NS) *told {
	o, updates, done := &told{links: map[string]bool{}}, make(chan netlink.LinkUpdate), make(chan struct{})
	t.Cleanup(func() { close(done) })
	do(t, netlink.LinkSubscribeAt(ns.FD(), updates, done))
	go func() {
		for u := range updates {
			o.mu.Lock()
			if u.Attrs().Name == "up2" {
				o.alias = u.Attrs().Alias
			}
			if u.IfInfomsg.Flags&unix.IFF_LOWER_UP == 0 {
				o.links[u.Attrs().Name] = true
			}
			o.mu.Unlock()
		}
	}()
	return o
}

// installed counts the routes that the kernel has.
func installed(table *fib.Table) int {
	shown := table.Routes(fib.Query{Limit: 1})
	return shown.Total - shown.Absent
}

// quietBox is a namespace with uplinks, and what is at their other ends. It has no IPv6, whose addresses come and go by themselves, and have everything
// looked at again.
func quietBox(t *testing.T, uplinks int) (gw, peer *nstest.NS) {
	gw, peer = nstest.New(t), nstest.New(t)
	gw.Do(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0o600) })
	for i := range uplinks {
		nstest.Veth(t, gw, fmt.Sprintf("up%d", i), peer, fmt.Sprintf("gw%d", i))
		gw.Address(t, fmt.Sprintf("up%d", i), fmt.Sprintf("198.18.0.%d/30", 4*i+2))
	}
	return gw, peer
}

// pull takes the carrier of an uplink away, and plug gives it back.
func pull(t *testing.T, peer *nstest.NS, i int) { t.Helper(); setLink(t, peer, i, peer.LinkSetDown) }
func plug(t *testing.T, peer *nstest.NS, i int) { t.Helper(); setLink(t, peer, i, peer.LinkSetUp) }

func setLink(t *testing.T, peer *nstest.NS, i int, change func(netlink.Link) error) {
	t.Helper()
	link, err := peer.LinkByName(fmt.Sprintf("gw%d", i))
	do(t, err)
	do(t, change(link))
}

// Three links lose their carriers one after the other. Of the second and the third the kernel tells when a second is over since it told of the first. The
// routes by the third do not wait for that, while nobody looks at the second. The other end of a link has its index: else the kernel
// takes it for a device on another one, and tells at once.
func TestACarrierThatTheKernelHoldsBackIsSeen(t *testing.T) {
	gw, peer := quietBox(t, 3)
	table, o := open(t, gw, plain), listen(t, gw)
	table.Update(pfx("192.0.2.0/24"), torA, hopA)                                 // by up0
	table.Update(pfx("198.51.100.0/24"), torB, netip.MustParseAddr("198.18.0.9")) // by up2
	for try := range 10 {                                                         // a machine that stands still for a second sees nothing
		expect(t, gw, "192.0.2.0/24 metric 20 via 198.18.0.1\n198.51.100.0/24 metric 20 via 198.18.0.9\n")
		o.reset()
		pull(t, peer, 2)
		nstest.Eventually(t, 10*time.Second, func() string { return nstest.Want("routes", installed(table), 1) }) // who heard of it has looked at the others as well
		pull(t, peer, 1)
		pull(t, peer, 0)
		expect(t, gw, "")
		if o.catchUp(t, gw, fmt.Sprint("try ", try)); !o.has("up1") {
			return
		}
		t.Logf("try %d: the kernel had told of up1", try)
		for i := range 3 {
			plug(t, peer, i)
		}
	}
	t.Error("the routes stay until the kernel tells")
}

// As above, while a table is written: the writer looks at the carriers in between.
func TestACarrierThatTheKernelHoldsBackIsSeenWhileATableIsWritten(t *testing.T) {
	const crowd = 60000 // takes half a second and more
	gw, peer := quietBox(t, 4)
	few := plain
	few.Accept = []fib.Match{{Prefix: pfx("192.0.2.0/24"), GE: 24, LE: 24}, {Prefix: pfx("198.51.100.0/24"), GE: 24, LE: 24}}
	table, o := open(t, gw, few), listen(t, gw)
	table.Update(pfx("192.0.2.0/24"), torA, hopA)                                 // by up0
	table.Update(pfx("198.51.100.0/24"), torB, netip.MustParseAddr("198.18.0.9")) // by up2
	for i := range crowd {
		table.Update(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), torA, netip.MustParseAddr("198.18.0.13"))
	}
	there := func() bool {
		_, err := gw.RouteGet(net.IPv4(192, 0, 2, 1))
		return err == nil
	}
	for try := range 10 {
		nstest.Eventually(t, time.Minute, func() string { return nstest.Want("routes", installed(table), 2) })
		expect(t, gw, "192.0.2.0/24 metric 20 via 198.18.0.1\n198.51.100.0/24 metric 20 via 198.18.0.9\n")
		o.reset()
		pull(t, peer, 2)
		nstest.Eventually(t, 10*time.Second, func() string { return nstest.Want("routes", installed(table), 1) })
		table.SetPolicy(plain) // all of them at once
		pull(t, peer, 1)
		pull(t, peer, 0)
		for begin := time.Now(); there() && time.Since(begin) < 10*time.Second; {
			time.Sleep(time.Millisecond) // the writer needs the processor
		}
		written := installed(table)
		if o.catchUp(t, gw, fmt.Sprint("try ", try)); !o.has("up1") && written < crowd {
			return
		}
		t.Logf("try %d: %d routes were written, the kernel had told: %t", try, written, o.has("up1"))
		table.SetPolicy(few)
		for i := range 3 {
			plug(t, peer, i)
		}
	}
	t.Error("the route stays until the table is written, or until the kernel tells")
}
