// Package nstest makes network namespaces, links and BIRD 2 for tests. Everything goes with the test: namespaces have
// no name and live as long as their descriptor, processes die with the test binary.
package nstest

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is a namespace with its loopback up, and a handle whose sockets are in it, whatever thread uses it.
type NS struct {
	fd netns.NsHandle
	*netlink.Handle
}

// New makes a namespace.
func New(t testing.TB) *NS {
	t.Helper()
	ns := &NS{}
	err := within(netns.None(), func() (err error) {
		ns.fd, err = netns.New()
		return err
	})
	if err != nil {
		t.Fatalf("make a network namespace (needs root): %v", err)
	}
	t.Cleanup(func() { _ = ns.fd.Close() })
	if ns.Handle, err = netlink.NewHandleAt(ns.fd, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Handle.Close)
	ns.Up(t, "lo")
	return ns
}

// Enter makes a namespace and leaves the test's goroutine in it, on a thread of its own, until the test ends. Child
// processes and /proc/sys/net follow the thread; other goroutines do not.
func Enter(t testing.TB) *NS {
	t.Helper()
	ns := New(t)
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer func() { _ = home.Close() }()
		if err := netns.Set(home); err != nil {
			t.Errorf("leave the network namespace: %v", err)
			return // the thread stays locked and ends with the goroutine
		}
		runtime.UnlockOSThread()
	})
	if err := netns.Set(ns.fd); err != nil {
		t.Fatal(err)
	}
	return ns
}

// FD is the namespace's descriptor, which the test closes.
func (ns *NS) FD() netns.NsHandle { return ns.fd }

// within runs f on a locked thread in the namespace (None: the one of the process) and brings the thread back. A
// thread that cannot come back stays locked, and so dies with its goroutine.
func within(ns netns.NsHandle, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = home.Close() }()
		if ns.IsOpen() {
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread()
		} else {
			err = errors.Join(err, back)
		}
		done <- err
	}()
	return <-done
}

// Try runs f on a thread in the namespace and returns its error.
func (ns *NS) Try(f func() error) error { return within(ns.fd, f) }

// Do is Try for what has to succeed.
func (ns *NS) Do(t testing.TB, f func() error) {
	t.Helper()
	if err := ns.Try(f); err != nil {
		t.Fatal(err)
	}
}

// Start starts cmd in the namespace. It is killed at the end of the test, and when the test binary dies.
func (ns *NS) Start(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ns.Do(t, cmd.Start)
	t.Cleanup(func() { Kill(cmd) })
}

// Kill ends a started command by SIGKILL and waits for it. It may be gone already.
func Kill(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// Veth joins two namespaces: the end in a is called as named by toB, and the other way round.
func Veth(t testing.TB, a *NS, toB string, b *NS, toA string) {
	t.Helper()
	link := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: toB},
		PeerName:  toA, PeerNamespace: netlink.NsFd(b.fd),
	}
	if err := a.LinkAdd(link); err != nil {
		t.Fatalf("veth %s: %v", toB, err)
	}
	a.Up(t, toB)
	b.Up(t, toA)
}

// Address adds addresses without duplicate address detection, so that they can be used at once.
func (ns *NS) Address(t testing.TB, link string, addresses ...string) {
	t.Helper()
	l, err := ns.LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := ns.AddrAdd(l, addr); err != nil {
			t.Fatalf("%s on %s: %v", a, link, err)
		}
	}
}

// Up sets a link up.
func (ns *NS) Up(t testing.TB, link string) {
	t.Helper()
	l, err := ns.LinkByName(link)
	if err == nil {
		err = ns.LinkSetUp(l)
	}
	if err != nil {
		t.Fatalf("%s: %v", link, err)
	}
}

// IP runs ip(8) in the namespace of the calling thread, that of Enter say, and returns what it prints.
func IP(t testing.TB, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// Eventually polls until ok returns "", and fails with the last complaint at the deadline.
func Eventually(t testing.TB, within time.Duration, ok func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		complaint := ok()
		if complaint == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after %v: %s", within, complaint)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Want is a complaint for Eventually unless got prints as want.
func Want(what string, got, want any) string {
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		return fmt.Sprintf("%s is %s, want %s", what, g, w)
	}
	return ""
}
