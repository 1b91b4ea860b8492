package probe

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// twoNamespaces leaves the test's goroutine in a namespace with eth0 = 198.18.0.1/24 and 2001:db8::1/64; its peer, .2 and
// ::2, is in another one. Everything goes with the namespaces.
func twoNamespaces(t *testing.T) (here, there netns.NsHandle) {
	t.Helper()
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatalf("open the test's network namespace: %v", err)
	}
	for _, ns := range []*netns.NsHandle{&there, &here} {
		if *ns, err = netns.New(); err != nil {
			t.Fatalf("make a network namespace (needs root): %v", err)
		}
	}
	t.Cleanup(func() {
		here.Close()
		there.Close()
		if err := netns.Set(before); err != nil {
			t.Errorf("go back to the test's namespace: %v", err)
			return // the thread stays locked and ends with the goroutine
		}
		before.Close()
		runtime.UnlockOSThread()
	})
	ip(t, "link add eth0 type veth peer name peer0")
	if err := netlink.LinkSetNsFd(link(t, "peer0"), int(there)); err != nil {
		t.Fatal(err)
	}
	for i, ns := range []netns.NsHandle{there, here} {
		enter(t, ns)
		name, host := []string{"peer0", "eth0"}[i], []string{"2", "1"}[i]
		ip(t, "link set "+name+" up")
		ip(t, "addr add 198.18.0."+host+"/24 dev "+name)
		ip(t, "addr add 2001:db8::"+host+"/64 dev "+name+" nodad")
	}
	return here, there
}

func enter(t *testing.T, ns netns.NsHandle) {
	t.Helper()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestReach(t *testing.T) {
	twoNamespaces(t)
	p := New(Options{Interval: 20 * time.Millisecond, Timeout: 5 * time.Second})
	for _, addr := range []string{"198.18.0.2", "2001:db8::2", "::ffff:198.18.0.2"} {
		rtt, err := p.Reach(t.Context(), netip.MustParseAddr(addr))
		if err != nil || rtt <= 0 || rtt > 5*time.Second {
			t.Errorf("%s: got %v, %v", addr, rtt, err)
		}
	}
	brief := New(Options{Interval: 20 * time.Millisecond, Timeout: 200 * time.Millisecond})
	for _, addr := range []string{"198.18.0.77", "2001:db8::77"} {
		if _, err := brief.Reach(t.Context(), netip.MustParseAddr(addr)); !errors.Is(err, ErrSilent) {
			t.Errorf("%s: got %v, want ErrSilent", addr, err)
		}
	}
	for _, addr := range []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:9::1"), {}} {
		if _, err := p.Reach(t.Context(), addr); err == nil || errors.Is(err, ErrSilent) {
			t.Errorf("%v, to which there is no route: got %v", addr, err)
		}
	}
}

func TestReachAsksAgainUntilThereIsAnAnswer(t *testing.T) {
	here, there := twoNamespaces(t)
	enter(t, there)
	mac := link(t, "peer0").Attrs().HardwareAddr.String()
	ip(t, "addr del 198.18.0.2/24 dev peer0")
	enter(t, here)
	// With the neighbor known requests leave at once, and nobody answers the first ones.
	ip(t, "neigh replace 198.18.0.2 lladdr "+mac+" nud permanent dev eth0")
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(here); err != nil {
			done <- err
			return
		}
		_, err := New(Options{Interval: 10 * time.Millisecond, Timeout: 20 * time.Second}).Reach(t.Context(), netip.MustParseAddr("198.18.0.2"))
		done <- err
	}()
	sent := func() uint64 { return link(t, "eth0").Attrs().Statistics.TxPackets }
	for start, deadline := sent(), time.Now().Add(10*time.Second); sent() < start+5; {
		if time.Now().After(deadline) {
			t.Fatal("no five packets in 10 s")
		}
		runtime.Gosched()
	}
	enter(t, there)
	ip(t, "addr add 198.18.0.2/24 dev peer0")
	enter(t, here)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestReachEndsWithItsContext(t *testing.T) {
	twoNamespaces(t)
	p := New(Options{Interval: time.Hour, Timeout: time.Hour})
	silent := netip.MustParseAddr("198.18.0.77")
	ctx, cancel := context.WithCancel(t.Context())
	timer := time.AfterFunc(20*time.Millisecond, cancel)
	defer timer.Stop()
	if _, err := p.Reach(ctx, silent); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled while waiting: %v", err)
	}
	if _, err := p.Reach(ctx, silent); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled before: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Reach(ctx, silent); !errors.Is(err, ErrSilent) {
		t.Errorf("deadline of the caller: %v", err)
	}
}

func TestManyProbesAtOnceKeepTheirAnswersApart(t *testing.T) {
	here, _ := twoNamespaces(t)
	p := New(Options{Interval: 20 * time.Millisecond, Timeout: 10 * time.Second})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			if err := netns.Set(here); err != nil {
				t.Error(err)
				return
			}
			if _, err := p.Reach(t.Context(), netip.MustParseAddr("198.18.0.2")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestOnlyOurRepliesAreAnswers(t *testing.T) {
	x := exchange{nonce: [nonceLen]byte{1, 2, 3}, sent: make([]time.Time, 2)}
	good := x.request(1)
	good[0] = echoReply4
	if seq, ok := x.answers(good); !ok || seq != 1 {
		t.Fatalf("got %d, %v", seq, ok)
	}
	for name, change := range map[string]func(m []byte) []byte{
		"a request":            func(m []byte) []byte { m[0] = echoRequest4; return m },
		"a code":               func(m []byte) []byte { m[1] = 1; return m },
		"a reply of ICMPv6":    func(m []byte) []byte { m[0] = echoReply6; return m },
		"another nonce":        func(m []byte) []byte { m[headerLen]++; return m },
		"a number not sent":    func(m []byte) []byte { m[7] = 2; return m },
		"a message cut short":  func(m []byte) []byte { return m[:len(m)-1] },
		"a message of nothing": func([]byte) []byte { return nil },
	} {
		if _, ok := x.answers(change(append([]byte(nil), good...))); ok {
			t.Errorf("%s was taken for an answer", name)
		}
	}
}

// TestCallsOfOneProberAreOneFlow: trackers know an echo by its addresses and its identifier.
func TestCallsOfOneProberAreOneFlow(t *testing.T) {
	p := New(Options{})
	for _, address := range []string{"198.18.0.2", "2001:db8::2"} {
		one, other := p.exchange(netip.MustParseAddr(address)), p.exchange(netip.MustParseAddr(address))
		a, b := one.request(0), other.request(0)
		if !bytes.Equal(a[4:6], b[4:6]) || !bytes.Equal(a[4:6], p.id[:]) {
			t.Errorf("%s: identifiers %x and %x", address, a[4:6], b[4:6])
		}
		if bytes.Equal(a[headerLen:], b[headerLen:]) {
			t.Errorf("%s: both say %x, and each other's answers would be theirs", address, a[headerLen:])
		}
	}
}
