package probe

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"sluice/tests/nstest"

	"github.com/vishvananda/netlink"
)

// twoNamespaces leaves the test's goroutine in a namespace with eth0 = 198.18.0.1/24 and 2001:db8::1/64; its peer, .2 and
// ::2, is in another one. Everything goes with the namespaces.
func twoNamespaces(t *testing.T) (here, there *nstest.NS) {
	t.Helper()
	there, here = nstest.New(t), nstest.Enter(t)
	nstest.Veth(t, here, "eth0", there, "peer0")
	here.Address(t, "eth0", "198.18.0.1/24", "2001:db8::1/64")
	there.Address(t, "peer0", "198.18.0.2/24", "2001:db8::2/64")
	return here, there
}

func link(t *testing.T, ns *nstest.NS, name string) netlink.Link {
	t.Helper()
	l, err := ns.LinkByName(name)
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
	const address = "198.18.0.2/24"
	peer := link(t, there, "peer0")
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := there.AddrDel(peer, addr); err != nil {
		t.Fatal(err)
	}
	// With the neighbor known requests leave at once, and nobody answers the first ones.
	nstest.IP(t, "neigh replace 198.18.0.2 lladdr "+peer.Attrs().HardwareAddr.String()+" nud permanent dev eth0")
	done := make(chan error, 1)
	go func() {
		done <- here.Try(func() error {
			_, err := New(Options{Interval: 10 * time.Millisecond, Timeout: 20 * time.Second}).Reach(t.Context(), netip.MustParseAddr("198.18.0.2"))
			return err
		})
	}()
	sent := func() uint64 { return link(t, here, "eth0").Attrs().Statistics.TxPackets }
	for start, deadline := sent(), time.Now().Add(10*time.Second); sent() < start+5; {
		if time.Now().After(deadline) {
			t.Fatal("no five packets in 10 s")
		}
		runtime.Gosched()
	}
	there.Address(t, "peer0", address)
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
			err := here.Try(func() error {
				_, err := p.Reach(t.Context(), netip.MustParseAddr("198.18.0.2"))
				return err
			})
			if err != nil {
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
