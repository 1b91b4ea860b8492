package path

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a network namespace without a name, with one TUN link.
type space struct {
	nl     *netlink.Handle
	driver *Driver
	link   netlink.Link
}

func newSpace(t *testing.T) *space {
	t.Helper()
	s := &space{}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, and the namespace with the last descriptor
		done <- s.open()
	}()
	if err := <-done; err != nil {
		t.Fatalf("new network namespace (root is needed): %v", err)
	}
	t.Cleanup(func() { s.driver.Stop(); s.nl.Close() })
	return s
}

func (s *space) open() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	if s.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if s.driver, err = New(slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "fra1"}, Mode: netlink.TUNTAP_MODE_TUN}
	if err := netlink.LinkAdd(tun); err != nil {
		return err
	}
	if s.link, err = s.nl.LinkByName("fra1"); err != nil {
		return err
	}
	return errors.Join(Claim(s.nl, s.link, 1400), s.nl.LinkSetUp(s.link))
}

func (s *space) converge(t *testing.T, want State) []string {
	t.Helper()
	have, err := s.driver.Observe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ops := Diff(have, want)
	for _, op := range ops {
		for range 2 { // as after a crash
			if err := s.driver.Apply(context.Background(), op); err != nil {
				t.Fatal(err)
			}
		}
	}
	return said(ops)
}

func TestBlackholesComeAndGoInBothTables(t *testing.T) {
	s := newSpace(t)
	want := holes("10.20.0.0/16", "fd00:20::/64")
	want.Blackholes = append(want.Blackholes, Blackhole{netip.MustParsePrefix("0.0.0.0/0"), Table}, Blackhole{netip.MustParsePrefix("10.20.0.0/16"), Table})
	slices.SortFunc(want.Blackholes, Blackhole.Compare)
	s.converge(t, want)
	have, err := s.driver.Observe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, have, comparePrefix); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
	if again := s.converge(t, want); len(again) != 0 {
		t.Errorf("a second apply does %v", again)
	}
	// Somebody else's of the same kind stays.
	dst := IPNet(netip.MustParsePrefix("10.99.0.0/16"))
	if err := s.nl.RouteAdd(&netlink.Route{Dst: &dst, Type: unix.RTN_BLACKHOLE, Protocol: 4}); err != nil {
		t.Fatal(err)
	}
	if err := s.driver.Down(context.Background()); err != nil {
		t.Fatal(err)
	}
	left, err := s.nl.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Type: unix.RTN_BLACKHOLE}, netlink.RT_FILTER_TYPE|netlink.RT_FILTER_TABLE)
	if err != nil || len(left) != 1 || left[0].Protocol != 4 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestAForeignRouteOfTheSameMetricIsNotReplaced(t *testing.T) {
	s := newSpace(t)
	l := NewLinks(s.nl, s.nl, nil, nil)
	p := netip.MustParsePrefix("10.20.0.0/16")
	dst := IPNet(p)
	if err := s.nl.RouteAdd(&netlink.Route{Dst: &dst, LinkIndex: s.link.Attrs().Index, Scope: netlink.SCOPE_LINK, Priority: 100, Protocol: 4}); err != nil {
		t.Fatal(err)
	}
	err := l.AddRoute(s.link, Route{Prefix: p, Metric: 100})
	if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "10.20.0.0/16 metric 100") {
		t.Errorf("error %v", err)
	}
	for _, r := range []Route{{Prefix: p, Metric: 101}, {Prefix: p, Metric: 100, Table: Table}} {
		for range 2 {
			if err := l.AddRoute(s.link, r); err != nil {
				t.Errorf("%v: %v", r, err)
			}
		}
	}
	routes, err := l.Routes()
	if err != nil {
		t.Fatal(err)
	}
	want := []Route{{Prefix: p, Metric: 100, Table: Table}, {Prefix: p, Metric: 101}}
	if diff := cmp.Diff(want, routes[s.link.Attrs().Index], comparePrefix); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
	for _, r := range want {
		for range 2 {
			if err := l.RemoveRoute(s.link, r); err != nil {
				t.Errorf("%v: %v", r, err)
			}
		}
	}
}

func TestWhatTheKernelTakesWithAnAddressIsPutBack(t *testing.T) {
	s := newSpace(t)
	l := NewLinks(s.nl, s.nl, nil, nil)
	first, second := netip.MustParsePrefix("10.200.0.4/24"), netip.MustParsePrefix("10.200.0.9/24")
	route := Route{Prefix: netip.MustParsePrefix("10.20.0.0/16"), Metric: 7}
	for _, p := range []netip.Prefix{first, second} {
		if err := l.AddAddress(s.link, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.AddRoute(s.link, route); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.RemoveAddress(s.link, first); err != nil {
			t.Fatal(err)
		}
	}
	addresses, err := l.Addresses()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]netip.Prefix{second}, addresses[s.link.Attrs().Index], comparePrefix); diff != "" {
		t.Errorf("addresses (-want +have):\n%s", diff)
	}
	routes, err := l.Routes()
	if diff := cmp.Diff([]Route{route}, routes[s.link.Attrs().Index], comparePrefix); diff != "" || err != nil {
		t.Errorf("routes (-want +have):\n%s%v", diff, err)
	}
}

func TestAClaimedLinkIsKnownAndForeignOnesAreNamed(t *testing.T) {
	s := newSpace(t)
	link, err := Lookup(s.nl, "fra1")
	if err != nil || link.Attrs().Alias != Alias("fra1") || link.Attrs().MTU != 1400 {
		t.Errorf("%+v, %v", link, err)
	}
	if link, err := Lookup(s.nl, "none"); link != nil || err != nil {
		t.Errorf("%v, %v", link, err)
	}
	if err := Foreign("fra1"); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "rename the tunnel") {
		t.Error(err)
	}
}
