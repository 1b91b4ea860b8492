//go:build vmguest

package guest

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/control/host"
	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// guard is the tc state of a box whose LANs are a bond and a VLAN child on it: hosts of the child may ask for an echo, those of
// the bond for nothing.
func guard() tc.State {
	echo := classify.Rule{ID: 1, Name: "echo", Protocol: 17, Ports: []classify.PortRange{{First: 7, Last: 7}}, Action: classify.Accept}
	lan := func(name string, rules ...classify.Rule) tc.LAN {
		return tc.LAN{Interface: name,
			Ingress: classify.Policy{Name: "interface/" + name + "/ingress", Default: classify.Drop},
			Egress:  classify.Policy{Name: "interface/" + name + "/egress", Default: classify.Drop, Rules: rules}}
	}
	g := tc.Generation{FlowSlots: 1024, RuleSlots: 16,
		Self:   []netip.Addr{netip.MustParseAddr("198.18.1.1"), netip.MustParseAddr("198.18.100.1")},
		Egress: classify.Policy{Name: "egress", Default: classify.Accept},
		LANs:   []tc.LAN{lan("bond0"), lan("bond0.100", echo)}}
	return tc.State{Generation: g, Digest: g.Digest(), Interfaces: []tc.Interface{
		{Name: "bond0", Role: tc.RoleDownstream}, {Name: "bond0.100", Role: tc.RoleDownstream}}}
}

// silent says that nobody answers, though one datagram after the other asks.
func (n *node) silent(t *testing.T, address string) {
	t.Helper()
	c := n.dial(t, address)
	buf := make([]byte, 64)
	for range 5 {
		c.Write(marker)
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Read(buf); err == nil {
			t.Fatalf("%s answers", address)
		}
	}
}

func TestDevicesThatAreLANsAreJudgedByTheirPolicies(t *testing.T) {
	b := newBundle(t)
	before := b.box.links(t)
	dir, pins := t.TempDir(), filepath.Join("/sys/fs/bpf", "lans")
	if err := os.MkdirAll(pins, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pin.At(pins).RemoveAll() })
	h, tor := b.box.host(t, dir), b.tor.host(t, t.TempDir())
	b.box.becomes(t, h, trunk(1, "fast", "m0", "m1"))
	b.tor.becomes(t, tor, trunk(2, "fast", "w0", "w1"))
	b.box.serveEcho(t, "198.18.1.1", "198.18.100.1")
	b.tor.serveEcho(t, "198.18.100.2")
	b.tor.answers(t, "198.18.1.1")
	b.tor.answers(t, "198.18.100.1")
	b.box.answers(t, "198.18.100.2")

	guarded := func() {
		t.Helper()
		b.tor.answers(t, "198.18.100.1")
		b.tor.silent(t, "198.18.1.1")
		b.box.silent(t, "198.18.100.2")
	}
	b.box.do(t, func() error { return converge(tc.New(quiet(), tc.Options{BPFDir: pins}), guard()) })
	guarded()
	b.tor.setDown(t, "w0")
	guarded()
	b.tor.setUp(t, "w0")

	// The daemon starts again, and in the meantime somebody has deleted the child: it is another link now.
	if err := b.box.nl.LinkDel(b.box.link(t, "bond0.100")); err != nil {
		t.Fatal(err)
	}
	next := b.box.host(t, dir)
	b.box.becomes(t, next, trunk(1, "fast", "m0", "m1"))
	b.box.do(t, func() error { return converge(tc.New(quiet(), tc.Options{BPFDir: pins}), guard()) })
	guarded()

	b.box.do(t, func() error { return tc.New(quiet(), tc.Options{BPFDir: pins}).Down(context.Background()) })
	b.box.gives(t, next)
	sameLinks(t, "after down", before, b.box.links(t))
}

// TestTagsOfAChildPassTheUplinkBelow: the uplink's XDP drops everything else.
func TestTagsOfAChildPassTheUplinkBelow(t *testing.T) {
	w := newWired(t)
	t.Cleanup(func() { _ = pin.At(w.dir).RemoveAll() })
	x := xdp.New(quiet(), xdp.Options{BPFDir: w.dir})
	uplink := w.box.link(t, w.uplink).Attrs().Index
	load := func(children ...xdp.VLANChild) {
		t.Helper()
		w.box.do(t, func() error {
			g := xdp.Generation{FlowSlots: 1024, RuleSlots: 16, Ingress: classify.Policy{Name: "ingress", Default: classify.Drop}, Children: children}
			return converge(x, xdp.State{Interfaces: []xdp.Interface{{Name: w.uplink, Mode: xdp.Generic}}, Generation: g, Digest: g.Digest()})
		})
	}
	h := w.box.host(t, t.TempDir())
	w.box.becomes(t, h, host.State{Tags: []host.Tags{{Link: w.uplink, InFrame: true}}})
	w.echo(t)
	load()
	w.tor.silent(t, "198.18.100.1")
	load(xdp.VLANChild{Ifindex: uint32(uplink), VLAN: 100})
	w.echo(t)
	load(xdp.VLANChild{Ifindex: uint32(uplink), VLAN: 101})
	w.tor.silent(t, "198.18.100.1")
	w.box.gives(t, h) // the next test finds the NIC's offload as it was
}
