package daemon

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/control/compile"
	"sluice/control/host"
	"sluice/crypto/ipsec"
	"sluice/crypto/keys"
	"sluice/crypto/path"
	"sluice/crypto/wireguard"
	"sluice/crypto/wireguard/child"
	"sluice/tests/nstest"
)

func TestDeletionsCountWhereTheyAreOfWhatIsWanted(t *testing.T) {
	p := netip.MustParsePrefix
	d := &Daemon{wireguard: &wireguard.Driver{}, ipsec: &ipsec.Driver{}, gone: newGone()}
	if err := d.wireguard.Withhold(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	want := &compile.Desired{
		Path: path.State{Blackholes: []path.Blackhole{{Prefix: p("10.20.0.0/16")}, {Prefix: p("0.0.0.0/0"), Table: path.Table}}},
		WireGuard: wireguard.State{Tunnels: []wireguard.Tunnel{{Name: "fra1", Addresses: []netip.Prefix{p("10.200.0.1/31")},
			Routes: []path.Route{{Prefix: p("10.20.0.0/16"), Metric: 100}, {Prefix: p("2001:db8:20::/48")}}}}},
		Host: host.State{
			Devices: []host.Device{{Name: "bond0"}}, Links: []host.Link{{Name: "eth0", Up: true}, {Name: "eth1"}}, Addresses: []host.Address{{Link: "eth0", Prefix: p("198.18.0.2/30")}},
			Routes: []host.Route{{Prefix: p("192.0.2.0/24"), Table: unix.RT_TABLE_MAIN}}, Rules: []host.Rule{{Priority: 18800}, {Priority: 18801, IPv6: true}},
		},
	}
	wanted := func() map[host.Gone]bool { return d.deletable(want) }
	lacks := func() bool { return d.gone.look()(wanted) }
	for _, c := range []struct {
		gone   host.Gone
		wanted bool
	}{
		{host.Gone{Route: p("10.20.0.0/16"), Metric: path.BlackholeMetric, Table: unix.RT_TABLE_MAIN}, true},
		{host.Gone{Route: p("0.0.0.0/0"), Metric: path.BlackholeMetric, Table: path.Table}, true},
		{host.Gone{Route: p("10.20.0.0/16"), Metric: 100, Table: unix.RT_TABLE_MAIN}, true},
		{host.Gone{Route: p("10.20.0.0/16"), Metric: 101, Table: unix.RT_TABLE_MAIN}, false}, // withdrawn by us
		{host.Gone{Route: p("2001:db8:20::/48"), Metric: 1024, Table: unix.RT_TABLE_MAIN}, true},
		{host.Gone{Route: p("192.0.2.0/24"), Table: unix.RT_TABLE_MAIN}, true},
		{host.Gone{Route: p("192.0.2.0/24"), Table: 77}, false},
		{host.Gone{Rule: 18800}, true},
		{host.Gone{Rule: 18800, IPv6: true}, false},
		{host.Gone{Rule: 18801, IPv6: true}, true},
		{host.Gone{Link: "fra1"}, true},
		{host.Gone{Link: "bond0"}, true},
		{host.Gone{Link: "fra1", Down: true}, true},
		{host.Gone{Link: "eth0", Down: true}, true},
		{host.Gone{Link: "eth1", Down: true}, false}, // it may be down
		{host.Gone{Link: "eth0"}, false},             // not of our making
		{host.Gone{Link: "fra1", Address: p("10.200.0.1/31")}, true},
		{host.Gone{Link: "eth0", Address: p("198.18.0.2/30")}, true},
		{host.Gone{Link: "eth1", Address: p("198.18.0.2/30")}, false},
	} {
		d.deleted(c.gone)
		if lacks() != c.wanted || lacks() {
			t.Errorf("%+v: it is not as wanted (%v), or counts twice", c.gone, c.wanted)
		}
		if woken := len(d.gone.wake) > 0; woken != (c.gone.Link == "") {
			t.Errorf("%+v: wakes the repair: %v", c.gone, woken)
		} else if woken {
			<-d.gone.wake
		}
	}
	// What goes while somebody looks may have gone behind the look: it is left for the next one as well.
	among := d.gone.look()
	d.deleted(host.Gone{Rule: 18800})
	if !among(wanted) || !lacks() || lacks() {
		t.Error("what went while somebody looked does not count twice")
	}
	// What we delete ourselves is nobody else's doing, also where another of its name is wanted; that one is as any.
	d.gone.ours(7)
	address := p("10.200.0.1/31")
	for _, one := range []host.Gone{{Link: "fra1", Index: 7, Down: true}, {Link: "fra1", Index: 7, Address: address}, {Link: "fra1", Index: 7}} {
		if d.deleted(one); lacks() {
			t.Errorf("%+v is our own doing", one)
		}
	}
	for _, one := range []host.Gone{{Link: "fra1", Index: 8, Down: true}, {Link: "fra1", Index: 8, Address: address}, {Link: "fra1", Index: 8}} {
		if d.deleted(one); !lacks() {
			t.Errorf("%+v is not", one)
		}
	}
	if len(d.gone.own) != 0 {
		t.Errorf("kept of links that are gone: %v", d.gone.own)
	}
	for i := range 3 * maxGone {
		d.deleted(host.Gone{Rule: 20000 + i})
	}
	if n := len(d.gone.list); n > maxGone || !lacks() || lacks() {
		t.Errorf("%d are kept of more than can be told apart, which has to be looked at once", n)
	}
}

// TestALinkThatWeMakeAnewIsNobodyElsesDoing: a tunnel that goes over to another backend has its link deleted and made by one step, and what
// follows it, such as programs for the new link, was told as the repair of somebody else's change.
func TestALinkThatWeMakeAnewIsNobodyElsesDoing(t *testing.T) {
	inNamespace(t)
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	d, err := build(ctx, Options{File: filepath.Join(dir, "edge.yaml"), StateDir: dir, BPFDir: "/sys/fs/bpf/sluice-none", Log: discard, TunnelCommand: []string{os.Args[0], child.Verb}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		if err := errors.Join(d.wireguard.Down(context.Background()), d.leave(context.Background())); err != nil {
			t.Error(err)
		}
	}()
	file := filepath.Join(dir, "key")
	public, err := keys.Generate(file)
	if err != nil {
		t.Fatal(err)
	}
	want := &compile.Desired{WireGuard: wireguard.State{Tunnels: []wireguard.Tunnel{{Name: "fra1", Backend: wireguard.Userspace, PrivateKeyFile: file, PublicKey: public,
		ListenPort: 51820, MTU: 1420, Addresses: []netip.Prefix{netip.MustParsePrefix("10.200.0.1/31")}}}}}
	heard := make(chan struct{}, 100) // a token for each link that is gone
	if _, err := d.host.Watch(ctx, func(one host.Gone) {
		if d.deleted(one); one.Link == "fra1" && !one.Down && !one.Address.IsValid() {
			heard <- struct{}{}
		}
	}); err != nil {
		t.Fatal(err)
	}
	holds := func(to wireguard.State) {
		t.Helper()
		have, err := d.wireguard.Observe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range d.wireguard.Diff(have, to) {
			if err := d.wireguard.Apply(ctx, op); err != nil {
				t.Fatal(err)
			}
		}
	}
	lacks := func() bool {
		t.Helper()
		select {
		case <-heard:
		case <-time.After(time.Minute):
			t.Fatal("nobody tells that the link is gone")
		}
		return d.gone.look()(func() map[host.Gone]bool { return deletable(want, want.WireGuard, want.IPsec) })
	}
	holds(want.WireGuard)
	holds(wireguard.State{})
	holds(want.WireGuard)
	if lacks() {
		t.Error("what we did ourselves is told as somebody else's doing")
	}
	nstest.IP(t, "link del fra1")
	if !lacks() {
		t.Error("what somebody else did is not")
	}
}
