//go:build vmguest

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"sluice/control/host"
	"sluice/xdp"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// wired are an e1000e, which takes VLAN tags out of frames, and a virtio NIC behind the same hub, each in a namespace of its own
// and with an interface of VLAN 100.
type wired struct {
	box, tor *node
	uplink   string
	dir      string // of the pins
}

func newWired(t *testing.T) *wired {
	t.Helper()
	w := &wired{box: newNode(t, netns.New), tor: newNode(t, netns.New), dir: filepath.Join("/sys/fs/bpf", "tags")}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		switch l.Attrs().HardwareAddr.String() {
		case "52:54:00:00:00:01":
			w.uplink = l.Attrs().Name
			err = netlink.LinkSetNsFd(l, int(w.box.ns))
		case "52:54:00:00:00:02":
			err = errors.Join(netlink.LinkSetNsFd(l, int(w.tor.ns)), w.tor.nl.LinkSetName(l, "tor0"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if w.uplink == "" {
		t.Fatal("the machine has no NIC 52:54:00:00:00:01")
	}
	w.givesBack(t)
	child(t, w.box, w.uplink, "198.18.100.1/24")
	child(t, w.tor, "tor0", "198.18.100.2/24")
	w.box.serveEcho(t, "198.18.100.1")
	return w
}

// givesBack leaves the NICs to the next test, which looks for them where this one found them.
func (w *wired) givesBack(t *testing.T) {
	t.Helper()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer home.Close()
		err := errors.Join(w.box.nl.LinkDel(w.box.link(t, "v100")), w.tor.nl.LinkDel(w.tor.link(t, "v100")), // they would stay with their parents
			w.box.nl.LinkSetNsFd(w.box.link(t, w.uplink), int(home)), w.tor.nl.LinkSetNsFd(w.tor.link(t, "tor0"), int(home)))
		if err != nil {
			t.Error(err)
		}
	})
}

func child(t *testing.T, n *node, parent, address string) {
	t.Helper()
	n.setUp(t, parent)
	p, err := n.nl.LinkByName(parent)
	if err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = "v100", p.Attrs().Index
	if err := n.nl.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: 100, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}); err != nil {
		t.Fatal(err)
	}
	n.setUp(t, "v100", address)
}

// echo asks the box by the VLAN until it answers: the link may come up late, or start over.
func (w *wired) echo(t *testing.T) {
	t.Helper()
	w.tor.do(t, func() error {
		conn, err := net.Dial("udp", "198.18.100.1:7")
		if err != nil {
			return err
		}
		defer conn.Close()
		deadline, buf := time.Now().Add(30*time.Second), make([]byte, 16)
		for time.Now().Before(deadline) {
			_, err = conn.Write([]byte("hello"))
			if err == nil {
				conn.SetReadDeadline(time.Now().Add(time.Second))
				_, err = io.ReadAtLeast(conn, buf, 5)
			}
			if err == nil {
				return nil
			}
		}
		return fmt.Errorf("the interface of the VLAN does not answer: %w", err)
	})
}

// hits is how often the rule for VLAN 100 matched.
func (w *wired) hits(t *testing.T) uint64 {
	t.Helper()
	hits, err := xdp.RuleHits(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	return hits[1].Packets
}

// TestTagsThatAnE1000eTakesOutAreSeenOnceItsOffloadIsOff is the real thing: hardware as QEMU makes it, with generic XDP.
func TestTagsThatAnE1000eTakesOutAreSeenOnceItsOffloadIsOff(t *testing.T) {
	w := newWired(t)
	t.Cleanup(func() { _ = pin.At(w.dir).RemoveAll() })
	w.box.do(t, func() error {
		g := xdp.Generation{FlowSlots: 1024, Ingress: classify.Policy{Name: "ingress", Default: classify.Accept, Rules: []classify.Rule{
			{ID: 1, Name: "tagged", Protocol: classify.AnyProtocol, VLANs: []classify.Range{{First: 100, Last: 100}}, Action: classify.Accept}}}}
		g.RuleSlots = 16
		return converge(xdp.New(quiet(), xdp.Options{BPFDir: w.dir}), xdp.State{
			Interfaces: []xdp.Interface{{Name: w.uplink, Mode: xdp.Generic}}, Generation: g, Digest: g.Digest()})
	})
	w.echo(t)
	if n := w.hits(t); n != 0 {
		t.Fatalf("the rule matched %d times with the offload on: this NIC takes no tags out, and the test shows nothing", n)
	}

	var h *host.Host
	w.box.do(t, func() (err error) {
		receivers, err := host.ReceiversOf(context.Background(), []string{w.uplink})
		if r := receivers[w.uplink]; err == nil && (len(r) != 1 || r[0].HidesTags != "") {
			t.Errorf("what receives is %+v", r)
		}
		if err != nil {
			return err
		}
		h, err = host.New(quiet(), host.Options{StateDir: t.TempDir()})
		return err
	})
	defer h.Close()
	want := host.State{Tags: []host.Tags{{Link: w.uplink, InFrame: true}}}
	w.box.do(t, func() error { return converge(h, want) })
	w.echo(t) // the kernel takes the tag out behind XDP, so the VLAN interface notices nothing
	if w.hits(t) == 0 {
		t.Error("the rule matches no tagged frame with the offload off")
	}
	w.box.do(t, func() error { return h.Down(context.Background()) })
	seen := w.hits(t) // by now: a frame that was sent twice may have come late
	w.echo(t)
	if n := w.hits(t); n != seen {
		t.Errorf("the rule matched %d times more after the offload was given back", n-seen)
	}
}

// TestOfABondTheMembersAreAskedForTheirTags: switching the offload of the bond itself changes nothing on them.
func TestOfABondTheMembersAreAskedForTheirTags(t *testing.T) {
	box := newNode(t, netns.New)
	bond := netlink.NewLinkBond(netlink.LinkAttrs{Name: "bond0"})
	if err := box.nl.LinkAdd(bond); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"m0", "m1"} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = name, bond.Attrs().Index
		if err := box.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "p" + name}); err != nil {
			t.Fatal(err)
		}
	}
	box.do(t, func() error {
		got, err := host.ReceiversOf(context.Background(), []string{"bond0"})
		if want := []host.Receiver{{Link: "m0", Kind: "veth"}, {Link: "m1", Kind: "veth"}}; !slices.Equal(sortedReceivers(got["bond0"]), want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		return err
	})
}

func sortedReceivers(in []host.Receiver) []host.Receiver {
	slices.SortFunc(in, func(a, b host.Receiver) int {
		if a.Link < b.Link {
			return -1
		}
		return 1
	})
	return in
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// driver is what every subsystem offers.
type driver[S, O any] interface {
	Observe(context.Context) (S, error)
	Diff(have, want S) []O
	Apply(context.Context, O) error
}

func converge[S, O any](d driver[S, O], want S) error {
	have, err := d.Observe(context.Background())
	if err != nil {
		return err
	}
	for _, op := range d.Diff(have, want) {
		if err := d.Apply(context.Background(), op); err != nil {
			return err
		}
	}
	return nil
}
