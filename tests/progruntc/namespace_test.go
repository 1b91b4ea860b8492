// Package progruntc tests the loaded tcx programs packet by packet, by BPF_PROG_TEST_RUN, and with real traffic between
// namespaces of the test's own: an outside, a gateway, two workloads.
package progruntc_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace that lives as long as its test.
type namespace struct{ handle netns.NsHandle }

func newNamespace(t testing.TB) namespace {
	t.Helper()
	made := make(chan netns.NsHandle)
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.New()
		if err != nil {
			failed <- err
			return
		}
		made <- ns
	}()
	select {
	case err := <-failed:
		t.Fatalf("these tests need root: make a network namespace: %v", err)
		return namespace{}
	case ns := <-made:
		t.Cleanup(func() { ns.Close() })
		n := namespace{ns}
		n.do(t, func() error {
			for _, conf := range []string{"all", "default"} {
				if err := sysctl("net/ipv6/conf/"+conf+"/accept_dad", "0"); err != nil {
					return err
				}
			}
			return nil
		})
		return n
	}
}

// run calls f in the namespace, on a thread of its own.
func (n namespace) run(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(n.handle); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func (n namespace) do(t testing.TB, f func() error) {
	t.Helper()
	if err := n.run(f); err != nil {
		t.Fatal(err)
	}
}

// enter moves the test's own goroutine into the namespace until the test ends.
func (n namespace) enter(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Set(n.handle); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Set(home); err == nil {
			runtime.UnlockOSThread()
		}
		home.Close()
	})
}

func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0)
}

// connect makes a veth: name in n, and peer in other.
func (n namespace) connect(t testing.TB, name string, other namespace, peer string) {
	t.Helper()
	n.do(t, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer,
			PeerNamespace: netlink.NsFd(other.handle)})
	})
	n.do(t, func() error { return up(name) })
	other.do(t, func() error { return up(peer) })
}

func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// address adds addresses without duplicate detection, so that they serve at once.
func (n namespace) address(t testing.TB, name string, prefixes ...string) {
	t.Helper()
	n.do(t, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, p := range prefixes {
			a, err := netlink.ParseAddr(p)
			if err != nil {
				return err
			}
			if a.IP.To4() == nil {
				a.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(l, a); err != nil {
				return fmt.Errorf("%s on %s: %w", p, name, err)
			}
		}
		return nil
	})
}

// neighbor makes the addresses of the other end of a link known, as they are while packets flow.
func (n namespace) neighbor(t testing.TB, name string, other namespace, peer string, addresses ...string) {
	t.Helper()
	var mac net.HardwareAddr
	other.do(t, func() error {
		l, err := netlink.LinkByName(peer)
		if err == nil {
			mac = l.Attrs().HardwareAddr
		}
		return err
	})
	n.do(t, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, a := range addresses {
			err := netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(a), HardwareAddr: mac})
			if err != nil {
				return fmt.Errorf("neighbor %s on %s: %w", a, name, err)
			}
		}
		return nil
	})
}

// route adds a route; via "" is on the link itself.
func (n namespace) route(t testing.TB, prefix, via, name string) {
	t.Helper()
	n.do(t, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		p := netip.MustParsePrefix(prefix)
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Flags: int(netlink.FLAG_ONLINK),
			Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if via == "" {
			r.Flags, r.Scope = 0, netlink.SCOPE_LINK
		} else {
			r.Gw = net.ParseIP(via)
		}
		if err := netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("route %s via %q dev %s: %w", prefix, via, name, err)
		}
		return nil
	})
}
