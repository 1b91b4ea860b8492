package image

import (
	"testing"

	"github.com/vishvananda/netlink"

	"sluice/tests/nstest"
)

// Tap makes a tap of four queues in ns: a NIC whose driver has a queue of its own to send XDP's packets needs more than one.
func Tap(t testing.TB, ns *nstest.NS, name string, addresses ...string) {
	t.Helper()
	tap := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP, Queues: 4,
		Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS | netlink.TUNTAP_VNET_HDR,
	}
	ns.Do(t, func() error { return netlink.LinkAdd(tap) })
	for _, queue := range tap.Fds { // QEMU's are the only ones, or packets go into a queue that nobody reads
		_ = queue.Close()
	}
	ns.Up(t, name)
	ns.Address(t, name, addresses...)
}

// Move brings a tap into another namespace, where a machine goes on with it.
func Move(t testing.TB, from *nstest.NS, name string, to *nstest.NS, addresses ...string) {
	t.Helper()
	link, err := from.LinkByName(name)
	if err == nil {
		err = from.LinkSetNsFd(link, int(to.FD()))
	}
	if err != nil {
		t.Fatalf("move %s: %v", name, err)
	}
	to.Up(t, name)
	to.Address(t, name, addresses...)
}
