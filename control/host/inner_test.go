package host

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"sluice/tests/nstest"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const (
	cookies = "net.ipv4.tcp_syncookies"
	stamps  = "net.ipv4.tcp_timestamps"
)

// named makes a namespace that `ip netns` knows, and leaves the thread where it is.
func named(t *testing.T, role string) (string, netns.NsHandle) {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	name := fmt.Sprintf("inner-%d-%s", os.Getpid(), role)
	ns, err := netns.NewNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ns.Close()
		_ = netns.DeleteNamed(name) // the test may have done it
	})
	if err := netns.Set(here); err != nil {
		t.Fatal(err)
	}
	return name, ns
}

func veth(t *testing.T, name string, to netns.NsHandle) {
	t.Helper()
	ip(t, "link add "+name+" type veth peer name in-"+name)
	peer, err := netlink.LinkByName("in-" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsFd(peer, int(to)); err != nil {
		t.Fatal(err)
	}
}

// holds compares a setting of another namespace.
func holds(t *testing.T, ns netns.NsHandle, path, want string) {
	t.Helper()
	var got string
	err := inside(ns, func() (err error) {
		got, err = readSysctl(path)
		return err
	})
	if err != nil || got != want {
		t.Errorf("%s is %q, %v; want %q", path, got, err, want)
	}
}

func TestSysctlsBehindAWorkloadAreSetAndGivenBack(t *testing.T) {
	inNamespace(t)
	_, web := named(t, "web")
	veth(t, "web-1", web)
	dir := t.TempDir()
	want := State{Inner: []InnerSysctl{{"web-1", cookies, "2"}, {"web-1", stamps, "2"}}}
	done := apply(t, open(t, dir), want)
	if got := strings.Join(done, "; "); got != "set sysctl net.ipv4.tcp_syncookies = 2 in the namespace behind web-1; "+
		"set sysctl net.ipv4.tcp_timestamps = 2 in the namespace behind web-1" {
		t.Errorf("the steps were %s", got)
	}
	holds(t, web, "net/ipv4/tcp_syncookies", "2")
	holds(t, web, "net/ipv4/tcp_timestamps", "2")
	if own, _ := readSysctl("net/ipv4/tcp_timestamps"); own != "1" {
		t.Errorf("the box's own tcp_timestamps became %s", own)
	}

	h := open(t, dir) // a daemon that starts again knows what it did
	if ops := Diff(observe(t, h), want); len(ops) > 0 {
		t.Errorf("after a restart there is %v to do", ops)
	}
	if err := inside(web, func() error { return writeSysctl("net/ipv4/tcp_timestamps", "0") }); err != nil {
		t.Fatal(err)
	}
	if done := apply(t, h, want); len(done) != 1 {
		t.Errorf("a change by hand is mended by %v", done)
	}
	down(t, h)
	holds(t, web, "net/ipv4/tcp_syncookies", "1")
	holds(t, web, "net/ipv4/tcp_timestamps", "1")
}

func TestANamespaceBehindTwoVethsIsGivenBackWithTheLast(t *testing.T) {
	inNamespace(t)
	_, web := named(t, "two")
	veth(t, "web-1", web)
	veth(t, "web-2", web)
	h := open(t, t.TempDir())
	one, two := InnerSysctl{"web-1", cookies, "2"}, InnerSysctl{"web-2", cookies, "2"}
	apply(t, h, State{Inner: []InnerSysctl{one, two}})
	apply(t, h, State{Inner: []InnerSysctl{two}})
	holds(t, web, "net/ipv4/tcp_syncookies", "2")
	apply(t, h, State{})
	holds(t, web, "net/ipv4/tcp_syncookies", "1")
}

func TestANamespaceThatWasMadeAnewIsSetAnew(t *testing.T) {
	inNamespace(t)
	name, first := named(t, "first")
	veth(t, "web-1", first)
	h := open(t, t.TempDir())
	want := State{Inner: []InnerSysctl{{"web-1", cookies, "2"}}}
	apply(t, h, want)

	ip(t, "link del web-1")
	if got := observe(t, h).Inner; len(got) > 0 {
		t.Errorf("without the veth it still observes %v", got)
	}
	if err := netns.DeleteNamed(name); err != nil {
		t.Fatal(err)
	}
	_, second := named(t, "second")
	if err := inside(second, func() error { return writeSysctl("net/ipv4/tcp_syncookies", "0") }); err != nil {
		t.Fatal(err)
	}
	veth(t, "web-1", second)
	if done := apply(t, h, want); len(done) != 1 {
		t.Errorf("the new namespace is set by %v", done)
	}
	holds(t, second, "net/ipv4/tcp_syncookies", "2")
	down(t, h)
	holds(t, second, "net/ipv4/tcp_syncookies", "0")
}

func TestWhatStandsBehindAWorkloadsInterface(t *testing.T) {
	inNamespace(t)
	_, web := named(t, "web")
	veth(t, "web-1", web)
	veth(t, "web-2", nstest.New(t).FD()) // neither named nor with a process: held by a descriptor of the test alone
	ip(t, "tuntap add vm-1 mode tap")
	ip(t, "link add here type veth peer name there")
	_, plain := named(t, "plain")
	veth(t, "plain-1", plain)
	err := inside(plain, func() error {
		return errors.Join(writeSysctl("net/ipv4/tcp_sack", "0"), writeSysctl("net/ipv4/tcp_window_scaling", "0"))
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := WorkloadsBehind(t.Context(), []string{"web-1", "web-2", "plain-1", "vm-1", "here", "gone", Here})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Behind{
		Here:      {},
		"web-1":   {Kind: "veth"},
		"plain-1": {Kind: "veth", NoSACK: true, NoWindowScaling: true},
		"web-2":   {Kind: "veth", Unreachable: errNoNamespace.Error()},
		"vm-1":    {Kind: "tuntap"},
		"here":    {Kind: "veth", Unreachable: "its other end is in this network namespace"},
	}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("behind %s is %+v, want %+v", name, got[name], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	h := open(t, t.TempDir())
	err = h.Apply(t.Context(), setInner{InnerSysctl{"web-2", cookies, "2"}})
	if err == nil || !strings.Contains(err.Error(), "behind web-2: its network namespace has no name") {
		t.Errorf("setting one there: %v", err)
	}
}
