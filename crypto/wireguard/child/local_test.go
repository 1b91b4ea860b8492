package child

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// An uplink that fails keeps its IPv4 addresses, which nobody can answer to any more.
func TestTheConfiguredAddressRestsWhileItsInterfaceIsDown(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "192.0.2.1")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	if err := n.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "up1"}); err != nil {
		t.Fatal(err)
	}
	link, err := n.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	other, err := n.LinkByName("up1")
	if err != nil {
		t.Fatal(err)
	}
	n.has(link, "198.18.0.1", true)
	b := &bind{}
	n.do(func() error {
		b.setLocal(netip.MustParseAddr("198.18.0.1"))
		return nil
	})
	to := &endpoint{remote: placeOf(netip.MustParseAddr("192.0.2.1"), 0), port: 1}
	was := b.configured(to).String()
	for _, step := range []struct {
		up   bool
		want string
	}{{false, "invalid IP"}, {true, "198.18.0.1"}, {false, "invalid IP"}} {
		set := n.LinkSetDown
		if step.up {
			set = n.LinkSetUp
		}
		if err := errors.Join(set(link), set(other)); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			var turned bool
			n.do(func() error {
				turned = b.look()
				return nil
			})
			got := b.configured(to).String()
			if turned != (got != was) {
				t.Fatalf("turned is %v: the source was %s and is %s", turned, was, got)
			}
			if turned && (&receiver{bind: b}).endpoint(&sockaddr{}, placeOf(netip.MustParseAddr("198.18.9.9"), 0)).source().IsValid() {
				t.Error("what was on its way to the source of before is answered from there")
			}
			was = got
			if got == step.want {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("up %v: the source is %s, want %s", step.up, got, step.want)
			}
		}
	}
}
