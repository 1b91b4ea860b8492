//go:build vmguest

package guest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"sluice/control/host"
)

// bundle is a box and a switch with three wires between them, m0 to m2 and their other ends w0 to w2.
type bundle struct{ box, tor *node }

func newBundle(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{newNode(t, netns.New), newNode(t, netns.New)}
	for n := range 3 {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprintf("m%d", n)
		wire := &netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("w%d", n), PeerNamespace: netlink.NsFd(b.tor.ns)}
		if err := b.box.nl.LinkAdd(wire); err != nil {
			t.Fatal(err)
		}
		b.tor.setUp(t, wire.PeerName)
	}
	b.box.setUp(t, "m0")
	return b
}

// host is a daemon's part that starts on a directory.
func (n *node) host(t *testing.T, dir string) (h *host.Host) {
	t.Helper()
	n.do(t, func() (err error) {
		h, err = host.New(quiet(), host.Options{StateDir: dir})
		return err
	})
	t.Cleanup(h.Close)
	return h
}

// becomes brings the node to a state, and checks that doing it again would do nothing.
func (n *node) becomes(t *testing.T, h *host.Host, want host.State) {
	t.Helper()
	n.do(t, func() error {
		if err := converge(h, want); err != nil {
			return err
		}
		have, err := h.Observe(context.Background())
		if ops := host.Diff(have, want); err == nil && len(ops) > 0 {
			err = fmt.Errorf("a second apply would do %v", ops)
		}
		return err
	})
}

func (n *node) gives(t *testing.T, h *host.Host) {
	t.Helper()
	n.do(t, func() error { return h.Down(context.Background()) })
}

// links prints what somebody could miss of the links: all but counters and indexes.
func (n *node) links(t *testing.T) string {
	t.Helper()
	links, err := n.nl.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var out []string
	for _, l := range links {
		a := l.Attrs()
		addresses, err := n.nl.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%s %s up %v mtu %d group %d mac %s of %q", a.Name, l.Type(), a.Flags&net.FlagUp != 0, a.MTU, a.Group, a.HardwareAddr, names[a.MasterIndex])
		if v, ok := l.(*netlink.Vlan); ok {
			line += fmt.Sprintf(" id %d on %s", v.VlanId, names[a.ParentIndex])
		}
		if b, ok := l.(*netlink.Bond); ok {
			line += fmt.Sprintf(" mode %s rate %s miimon %d", b.Mode, b.LacpRate, b.Miimon)
		}
		for _, address := range addresses {
			line += " " + address.IPNet.String()
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func (n *node) shows(t *testing.T, parts ...string) {
	t.Helper()
	text := n.links(t)
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("want %q in\n%s", part, text)
		}
	}
}

func sameLinks(t *testing.T, what, before, after string) {
	t.Helper()
	if before != after {
		t.Errorf("%s: links were\n%s\nand are\n%s", what, before, after)
	}
}

func bond(lacp string, members ...string) host.Device {
	return host.Device{Name: "bond0", Members: members, LACP: lacp}
}

func address(link, prefix string) host.Address {
	return host.Address{Link: link, Prefix: list(prefix)[0]}
}

// trunk is a bond with a VLAN child, each with an address that ends in n.
func trunk(n int, lacp string, members ...string) host.State {
	return host.State{
		Devices:   []host.Device{bond(lacp, members...), {Name: "bond0.100", Parent: "bond0", VLAN: 100}},
		Links:     []host.Link{{Name: "bond0", Up: true, MTU: 9000}, {Name: "bond0.100", Up: true, MTU: 1500}},
		Addresses: []host.Address{address("bond0", fmt.Sprintf("198.18.1.%d/24", n)), address("bond0.100", fmt.Sprintf("198.18.100.%d/24", n))},
	}
}

func TestDevicesCarryTrafficAndAreGivenBack(t *testing.T) {
	b := newBundle(t)
	before, there := b.box.links(t), b.tor.links(t)
	dir := t.TempDir()
	box, tor := b.box.host(t, dir), b.tor.host(t, t.TempDir())
	b.box.becomes(t, box, trunk(1, "fast", "m0", "m1"))
	b.tor.becomes(t, tor, trunk(2, "slow", "w0", "w1"))
	b.box.shows(t, "bond0 bond up true mtu 9000", "mode 802.3ad rate fast miimon 100 198.18.1.1/24", `m0 veth up true mtu 9000`,
		"bond0.100 vlan up true mtu 1500", "id 100 on bond0 198.18.100.1/24")
	b.tor.serveEcho(t, "198.18.1.2", "198.18.100.2")
	b.box.answers(t, "198.18.1.2")
	b.box.answers(t, "198.18.100.2")
	// LACP has agreed, and not that each side went on alone: all ports are in one aggregator.
	b.box.hasPartner(t)

	// One wire goes down: the other carries on.
	b.tor.setDown(t, "w0")
	b.box.answers(t, "198.18.100.2")
	b.tor.setUp(t, "w0")

	next := b.box.host(t, dir) // nothing but the directory is handed over
	b.box.becomes(t, next, trunk(1, "fast", "m0", "m1"))
	b.box.answers(t, "198.18.100.2")
	b.box.gives(t, next)
	sameLinks(t, "the box after down", before, b.box.links(t))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the ledger is still there: %v, %v", left, err)
	}
	b.tor.gives(t, tor)
	sameLinks(t, "the switch after down", there, b.tor.links(t))
}

func (n *node) setDown(t *testing.T, name string) {
	t.Helper()
	l, err := n.nl.LinkByName(name)
	if err == nil {
		err = n.nl.LinkSetDown(l)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// hasPartner waits until both ports of the bond carry traffic that the partner has agreed to (IEEE 802.1AX section 6.4.2.3).
func (n *node) hasPartner(t *testing.T) {
	t.Helper()
	const distributing = 0x3c // in sync, collecting, distributing, and to be aggregated
	deadline := time.Now().Add(patience)
	for {
		aggregators := map[uint16]bool{}
		agreed := 0
		for _, name := range []string{"m0", "m1"} {
			if s, ok := n.link(t, name).Attrs().Slave.(*netlink.BondSlave); ok {
				aggregators[s.AggregatorId] = true
				if s.AdPartnerOperPortState&distributing == distributing && int(s.AdActorOperPortState)&distributing == distributing {
					agreed++
				}
			}
		}
		if len(aggregators) == 1 && agreed == 2 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 2 ports are agreed, in %d aggregators", agreed, len(aggregators))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestDevicesThatWereTakenAwayComeBack(t *testing.T) {
	b := newBundle(t)
	before := b.box.links(t)
	h := b.box.host(t, t.TempDir())
	want := trunk(1, "off", "m0", "m1")
	b.box.becomes(t, h, want)
	whole := b.box.links(t)
	for name, drift := range map[string]func() error{
		"the child":            func() error { return b.box.nl.LinkDel(b.box.link(t, "bond0.100")) },
		"the bond":             func() error { return b.box.nl.LinkDel(b.box.link(t, "bond0")) },
		"a member":             func() error { return b.box.nl.LinkSetNoMaster(b.box.link(t, "m1")) },
		"a stranger as member": func() error { return b.box.nl.LinkSetMaster(b.box.link(t, "m2"), b.box.link(t, "bond0")) },
		"the name": func() error {
			b.box.setDown(t, "bond0.100")
			return b.box.nl.LinkSetName(b.box.link(t, "bond0.100"), "x")
		},
		"the mode": func() error {
			b.box.setDown(t, "bond0")
			for _, m := range []string{"m0", "m1"} {
				if err := b.box.nl.LinkSetNoMaster(b.box.link(t, m)); err != nil {
					return err
				}
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.Index = "bond0", b.box.link(t, "bond0").Attrs().Index
			mode := netlink.NewLinkBond(attrs)
			mode.Mode = netlink.BOND_MODE_802_3AD
			return b.box.nl.LinkModify(mode)
		},
	} {
		if err := drift(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b.box.becomes(t, h, want)
		if got := withoutMAC(b.box.links(t)); got != withoutMAC(whole) {
			t.Errorf("%s: links were\n%s\nand are\n%s", name, whole, b.box.links(t))
		}
	}
	b.box.gives(t, h)
	sameLinks(t, "after down", before, b.box.links(t))
}

// withoutMAC leaves out what a bond takes from its first member.
func withoutMAC(links string) string {
	var out []string
	for line := range strings.Lines(links) {
		head, tail, _ := strings.Cut(line, " mac ")
		_, tail, _ = strings.Cut(tail, " ")
		out = append(out, head+" "+tail)
	}
	return strings.Join(out, "")
}

func (n *node) link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := n.nl.LinkByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l
}

func TestDevicesChangeInPlace(t *testing.T) {
	b := newBundle(t)
	before := b.box.links(t)
	h := b.box.host(t, t.TempDir())
	b.box.becomes(t, h, trunk(1, "fast", "m0", "m1"))
	index := b.box.link(t, "bond0").Attrs().Index
	for _, c := range []struct {
		lacp    string
		members []string
		shows   string
	}{
		{"slow", []string{"m0", "m1"}, "mode 802.3ad rate slow miimon 100 198.18.1.1/24"},
		{"slow", []string{"m1", "m2"}, "m2 veth up true"},
		{"off", []string{"m0"}, "mode active-backup"},
		{"fast", []string{"m0", "m1", "m2"}, "mode 802.3ad rate fast"},
	} {
		b.box.becomes(t, h, trunk(1, c.lacp, c.members...))
		b.box.shows(t, c.shows)
		for _, m := range []string{"m0", "m1", "m2"} {
			if in := b.box.link(t, m).Attrs().MasterIndex == index; in != slices.Contains(c.members, m) {
				t.Errorf("lacp %s of %v: %s is a member: %v", c.lacp, c.members, m, in)
			}
		}
		if now := b.box.link(t, "bond0").Attrs().Index; now != index {
			t.Errorf("lacp %s of %v: the bond was made anew", c.lacp, c.members)
		}
	}

	// Ids that are exchanged, another name for one VLAN, and a member that moves to another bond.
	swap := func(a, c int) host.State {
		return host.State{Devices: []host.Device{bond("off", "m0"), {Name: "a", Parent: "bond0", VLAN: a}, {Name: "c", Parent: "bond0", VLAN: c}}}
	}
	b.box.becomes(t, h, swap(1, 2))
	b.box.becomes(t, h, swap(2, 1))
	b.box.shows(t, "id 2 on bond0", "id 1 on bond0")
	b.box.becomes(t, h, host.State{Devices: []host.Device{bond("off", "m1"), {Name: "d", Parent: "bond0", VLAN: 1},
		{Name: "bond1", Members: []string{"m0"}, LACP: "slow"}}})
	b.box.shows(t, "d vlan", "id 1 on bond0", `of "bond1"`)
	b.box.becomes(t, h, host.State{})
	sameLinks(t, "with nothing wanted", before, b.box.links(t))
}

// TestDevicesOfAHostThatDies: after every step the daemon dies, once with all done, once with claims alone.
func TestDevicesOfAHostThatDies(t *testing.T) {
	b := newBundle(t)
	before := b.box.links(t)
	want := trunk(1, "fast", "m0", "m1")
	dir := t.TempDir()
	ledger := filepath.Join(dir, "host.json")
	for i := range host.Diff(host.State{}, want) {
		apply := func() {
			first := b.box.host(t, dir)
			b.box.do(t, func() error {
				for _, op := range host.Diff(host.State{}, want)[:i+1] {
					for range 2 {
						if err := first.Apply(context.Background(), op); err != nil {
							return err
						}
					}
				}
				return nil
			})
		}
		apply()
		claims, err := os.ReadFile(ledger)
		if err != nil {
			t.Fatal(err)
		}
		b.box.gives(t, b.box.host(t, dir))
		sameLinks(t, fmt.Sprintf("down after step %d", i), before, b.box.links(t))

		if err := os.WriteFile(ledger, claims, 0o600); err != nil {
			t.Fatal(err)
		}
		b.box.gives(t, b.box.host(t, dir))
		sameLinks(t, fmt.Sprintf("down with the claims of step %d alone", i), before, b.box.links(t))

		if err := os.WriteFile(ledger, claims, 0o600); err != nil {
			t.Fatal(err)
		}
		next := b.box.host(t, dir)
		b.box.becomes(t, next, want)
		b.box.gives(t, next)
		sameLinks(t, fmt.Sprintf("down after going on from the claims of step %d", i), before, b.box.links(t))
	}
}

func TestDevicesOfOthersStay(t *testing.T) {
	b := newBundle(t)
	attrs := func(name string) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name = name
		return a
	}
	theirs := netlink.NewLinkBond(attrs("bond0"))
	theirs.Mode = netlink.BOND_MODE_BALANCE_RR
	child := attrs("m1.7")
	child.ParentIndex = b.box.link(t, "m1").Attrs().Index
	for _, l := range []netlink.Link{theirs, &netlink.Vlan{LinkAttrs: child, VlanId: 7, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q},
		&netlink.Veth{LinkAttrs: attrs("v0"), PeerName: "v1"}} {
		if err := b.box.nl.LinkAdd(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.box.nl.LinkSetMaster(b.box.link(t, "m2"), b.box.link(t, "bond0")); err != nil {
		t.Fatal(err)
	}
	before := b.box.links(t)
	h := b.box.host(t, t.TempDir())
	for _, c := range []struct {
		device host.Device
		says   string
	}{
		{bond("fast", "m2"), "interface bond0 is there already (bond bond0 of m2 lacp mode balance-rr) and not ours"},
		{host.Device{Name: "v0", Parent: "m1", VLAN: 8}, "interface v0 is there already (of kind veth) and not ours"},
		{host.Device{Name: "m1.7", Parent: "m1", VLAN: 8}, "interface m1.7 is there already (vlan m1.7 link m1 id 7) and not ours"},
		{host.Device{Name: "lan7", Parent: "m1", VLAN: 7}, "m1 has an interface for VLAN 7 already, and it is not ours"},
		{host.Device{Name: "bond1", Members: []string{"m2"}, LACP: "off"}, "m2 belongs to bond0, which is not ours"},
		{host.Device{Name: "x.7", Parent: "nothing", VLAN: 7}, "interface nothing does not exist"},
	} {
		var applied error
		b.box.do(t, func() error { applied = converge(h, host.State{Devices: []host.Device{c.device}}); return nil })
		if applied == nil || !strings.Contains(applied.Error(), c.says) {
			t.Errorf("%v: error %v, want %q", c.device, applied, c.says)
		}
		b.box.gives(t, h)
		sameLinks(t, c.device.String(), before, b.box.links(t))
	}
	// An equal one is taken as it is, and left.
	b.box.becomes(t, h, host.State{Devices: []host.Device{{Name: "m1.7", Parent: "m1", VLAN: 7}}})
	b.box.gives(t, h)
	sameLinks(t, "after adoption", before, b.box.links(t))
}

func TestDevicesThatTheOperatorNeedsStayOnDown(t *testing.T) {
	b := newBundle(t)
	dir := t.TempDir()
	h := b.box.host(t, dir)
	want := trunk(1, "off", "m0", "m1")
	want.Devices[0].Keep, want.Devices[1].Keep, want.Addresses[1].Keep = true, true, true
	want.Links = append(want.Links, host.Link{Name: "m2", Up: true})
	b.box.becomes(t, h, want)
	b.box.gives(t, h)
	b.box.shows(t, "bond0 bond up true", "bond0.100 vlan up true", "id 100 on bond0 198.18.100.1/24", "m2 veth up false")
	next := b.box.host(t, dir)
	b.box.becomes(t, next, want)
	b.box.becomes(t, next, host.State{})
	if text := b.box.links(t); strings.Contains(text, "bond0") {
		t.Errorf("what is wanted no more is there:\n%s", text)
	}
}
