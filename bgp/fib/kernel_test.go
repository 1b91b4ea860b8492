package fib

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"

	"sluice/tests/nstest"
)

// A link is lost when the kernel says so, and not when nobody answers.
func TestALinkThatCannotBeAskedForIsNotLost(t *testing.T) {
	ns, peer := nstest.New(t), nstest.New(t)
	nstest.Veth(t, ns, "up0", peer, "gw0")
	link := func(change func(netlink.Link) error) int {
		l, err := ns.LinkByName("up0")
		if err == nil {
			err = change(l)
		}
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().Index
	}
	k, err := dial(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	if err := k.up(link(ns.LinkSetUp)); err != nil {
		t.Errorf("a link that is up: %v", err)
	}
	down := link(ns.LinkSetDown)
	for index, want := range map[int]string{down: "up0 is down", 1 << 20: "its link is gone"} {
		if err := k.up(index); err == nil || err.Error() != want {
			t.Errorf("link %d: %v, want %s", index, err, want)
		}
	}
	if _, err := k.h.LinkByIndex(0); err == nil || errors.As(err, &netlink.LinkNotFoundError{}) {
		t.Fatalf("the kernel has an answer: %v", err) // it is EINVAL
	}
	if err := k.up(0); err != nil {
		t.Errorf("a question that fails: %v", err)
	}
}
