package daemon

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/control/compile"
	"sluice/control/host"
	"sluice/crypto/ipsec"
	"sluice/crypto/path"
	"sluice/crypto/wireguard"
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
	for i := range 3 * maxGone {
		d.deleted(host.Gone{Rule: 20000 + i})
	}
	if n := len(d.gone.list); n > maxGone || !lacks() || lacks() {
		t.Errorf("%d are kept of more than can be told apart, which has to be looked at once", n)
	}
}
