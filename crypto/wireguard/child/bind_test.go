package child

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"sluice/tests/nstest"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// network is a namespace with nothing but a loopback interface, which has the addresses.
type network struct {
	*nstest.NS
	t  *testing.T
	lo netlink.Link
}

func newNetwork(t *testing.T, addresses ...string) *network {
	t.Helper()
	n := &network{NS: nstest.New(t), t: t}
	var err error
	if n.lo, err = n.LinkByName("lo"); err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		n.has(n.lo, a, true)
	}
	return n
}

// has gives an interface an address, or takes it.
func (n *network) has(link netlink.Link, address string, yes bool) {
	n.t.Helper()
	a := netip.MustParseAddr(address)
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	f := n.AddrDel
	if yes {
		f = n.AddrAdd
	}
	if err := f(link, addr); err != nil {
		n.t.Fatalf("%s: %v", address, err)
	}
	if !a.Is6() {
		return
	}
	// The local route of an IPv6 address comes and goes a moment later.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		routes, err := n.RouteListFiltered(unix.AF_INET6, &netlink.Route{Dst: addr.IPNet, Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
		if err == nil && (len(routes) > 0) == yes {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the local route of %s: %v, %v", address, routes, err)
		}
	}
}

// do runs f inside.
func (n *network) do(f func() error) {
	n.t.Helper()
	n.Do(n.t, f)
}

// datagram is one that a party received.
type datagram struct {
	text string
	from *endpoint
}

// party is a bind that listens, and what came.
type party struct {
	*bind
	t    *testing.T
	port uint16
	came chan datagram
}

func (n *network) party() *party {
	n.t.Helper()
	p := &party{bind: &bind{}, t: n.t, came: make(chan datagram, 10000)}
	var receive []conn.ReceiveFunc
	n.do(func() (err error) {
		receive, p.port, err = p.Open(0)
		return err
	})
	if len(receive) != 2 {
		n.t.Fatalf("%d sockets", len(receive))
	}
	var ended sync.WaitGroup
	for _, f := range receive {
		ended.Go(func() {
			// Few places, so that gathered datagrams are given out piece by piece.
			bufs, sizes, eps := make([][]byte, 10), make([]int, 10), make([]conn.Endpoint, 10)
			for i := range bufs {
				bufs[i] = make([]byte, 2000)
			}
			for {
				count, err := f(bufs, sizes, eps)
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						n.t.Errorf("receive: %v", err)
					}
					return
				}
				for i := range count {
					p.came <- datagram{string(bufs[i][:sizes[i]]), eps[i].(*endpoint)}
				}
			}
		})
	}
	n.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			n.t.Error(err)
		}
		ended.Wait()
	})
	return p
}

// at is the endpoint of a party, at an address.
func (p *party) at(address string) conn.Endpoint {
	p.t.Helper()
	e, err := p.ParseEndpoint(netip.AddrPortFrom(netip.MustParseAddr(address), p.port).String())
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

// say sends datagrams.
func (p *party) say(to conn.Endpoint, texts ...string) {
	p.t.Helper()
	bufs := make([][]byte, len(texts))
	for i, s := range texts {
		bufs[i] = []byte(s)
	}
	if err := p.Send(bufs, to); err != nil {
		p.t.Fatalf("send to %s: %v", to.DstToString(), err)
	}
}

// next waits for a datagram.
func (p *party) next() datagram {
	p.t.Helper()
	select {
	case d := <-p.came:
		return d
	case <-time.After(10 * time.Second):
		p.t.Fatal("no datagram comes")
		panic("unreachable")
	}
}

// hears waits for datagrams, which must come from one address in the order given, and returns the last one's endpoint.
func (p *party) hears(from string, texts ...string) *endpoint {
	p.t.Helper()
	var last *endpoint
	for i, want := range texts {
		d := p.next()
		if d.text != want || d.from.DstIP().String() != from {
			p.t.Fatalf("datagram %d is %.20q of %d bytes from %s, want %.20q of %d from %s", i, d.text, len(d.text), d.from.DstIP(), want, len(want), from)
		}
		last = d.from
	}
	return last
}

// texts are datagrams of these sizes, each its own.
func texts(sizes ...int) (out []string) {
	for i, size := range sizes {
		out = append(out, string(bytes.Repeat([]byte{byte('!' + i%90)}, size)))
	}
	return out
}

func times(n, size int) (sizes []int) {
	for range n {
		sizes = append(sizes, size)
	}
	return sizes
}

var batchesOfSizes = map[string][]int{
	"one":                     {100},
	"of one size":             times(conn.IdealBatchSize, 1400),
	"small":                   times(conn.IdealBatchSize, 32),
	"with a short end":        append(times(20, 1400), 7),
	"growing":                 {10, 20, 30, 40, 50},
	"falling":                 {50, 40, 30, 20, 10},
	"short ends in between":   append(append(times(9, 900), 100), append(times(5, 1000), 100, 1400, 1400)...),
	"more than a message has": times(100, 1900),
}

func TestAnswersComeFromTheAddressThatWasSpokenTo(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2", "2001:db8::3")
	asks, answers := n.party(), n.party()
	for name, sizes := range batchesOfSizes {
		for _, to := range []string{"192.0.2.2", "2001:db8::2", "192.0.2.3", "2001:db8::3"} {
			t.Run(name+" to "+to, func(t *testing.T) {
				from := "192.0.2.1"
				if netip.MustParseAddr(to).Is6() {
					from = "2001:db8::1"
				}
				asks.setLocal(netip.MustParseAddr(from))
				asks.say(answers.at(to), texts(sizes...)...)
				e := answers.hears(from, texts(sizes...)...)
				if e.SrcIP().String() != to {
					t.Errorf("spoken to is %s", e.SrcIP())
				}
				answers.say(e, texts(sizes...)...)
				asks.hears(to, texts(sizes...)...)
			})
		}
	}
}

func TestFamiliesDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "192.0.2.1", "2001:db8::1")
	asks, answers := n.party(), n.party()
	const each = 300
	var sent sync.WaitGroup
	for _, to := range []string{"192.0.2.1", "2001:db8::1"} {
		e := answers.at(to)
		for range 2 {
			sent.Go(func() {
				for range each {
					if err := asks.Send([][]byte{[]byte(to), []byte(to)}, e); err != nil {
						t.Errorf("to %s: %v", to, err)
					}
				}
			})
		}
	}
	for range 2 * 2 * 2 * each {
		d := answers.next()
		if d.from.DstIP().String() != d.text || d.from.SrcIP().String() != d.text {
			t.Fatalf("what was sent to %s came to %s from %s", d.text, d.from.SrcIP(), d.from.DstIP())
		}
	}
	sent.Wait()
}

func TestASourceThatIsGoneIsForgotten(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")
	asks, answers := n.party(), n.party()
	for _, c := range []struct{ first, second string }{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
		asks.setLocal(netip.MustParseAddr(c.first))
		asks.say(answers.at(c.second), texts(10)...)
		e := answers.next().from
		answers.say(e, texts(10)...)
		asks.hears(c.second, texts(10)...)
		n.has(n.lo, c.second, false)
		for range 2 {
			answers.say(e, texts(900, 900, 900)...)
			for range 3 {
				if d := asks.next(); d.from.DstIP().String() == c.second || len(d.text) != 900 {
					t.Errorf("%d bytes from %s", len(d.text), d.from.DstIP())
				}
			}
			if e.SrcIP().IsValid() {
				t.Errorf("%s is remembered", e.SrcIP())
			}
		}
		// The peer speaks again, and the address is back.
		n.has(n.lo, c.second, true)
		asks.say(answers.at(c.second), texts(10)...)
		answers.say(answers.next().from, texts(10)...)
		asks.hears(c.second, texts(10)...)
	}
}

func TestWhatAnswersNothingComesFromTheConfiguredAddressWhereItCan(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "192.0.2.1", "192.0.2.2", "2001:db8::1")
	asks, answers := n.party(), n.party()
	hears := func(what, from string) {
		t.Helper()
		asks.say(answers.at("192.0.2.1"), texts(700, 700)...)
		for range 2 {
			if d := answers.next(); (d.from.DstIP().String() == "192.0.2.2") != (from == "192.0.2.2") {
				t.Errorf("%s: from %s", what, d.from.DstIP())
			}
		}
	}
	hears("at first", "as routed")
	asks.setLocal(netip.MustParseAddr("192.0.2.2"))
	hears("once set", "192.0.2.2")
	n.has(n.lo, "192.0.2.2", false)
	hears("once it is gone", "as routed")
	n.has(n.lo, "192.0.2.2", true)
	hears("once it is back", "192.0.2.2")
	asks.say(answers.at("2001:db8::1"), "of the other family")
	answers.hears("2001:db8::1", "of the other family")
	asks.setLocal(netip.Addr{})
	hears("once unset", "as routed")
}

func TestDatagramsLongerThanTheWayIsWideAreFragmented(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "192.0.2.1", "2001:db8::1")
	if err := n.LinkSetMTU(n.lo, 1300); err != nil {
		t.Fatal(err)
	}
	asks, answers := n.party(), n.party()
	for _, to := range []string{"192.0.2.1", "2001:db8::1"} {
		sizes := append(times(30, 1400), 100)
		for range 2 {
			asks.say(answers.at(to), texts(sizes...)...)
			answers.hears(to, texts(sizes...)...)
		}
		if !asks.v4.Load().segments.Load() || !asks.v6.Load().segments.Load() {
			t.Error("no segments are tried any more")
		}
	}
}

func TestEverythingIsSentOneByOneWhereTheKernelCutsNothing(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "192.0.2.1", "2001:db8::1")
	asks, answers := n.party(), n.party()
	asks.v4.Load().segments.Store(false)
	asks.v6.Load().segments.Store(false)
	for _, to := range []string{"192.0.2.1", "2001:db8::1"} {
		asks.say(answers.at(to), texts(times(conn.IdealBatchSize, 1400)...)...)
		answers.hears(to, texts(times(conn.IdealBatchSize, 1400)...)...)
	}
}

func TestLinkLocalEndpointsKeepTheirInterface(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "fe80::1", "fe80::2")
	asks, answers := n.party(), n.party()
	n.do(func() error {
		e, err := answers.ParseEndpoint(fmt.Sprintf("[fe80::2%%lo]:%d", answers.port))
		if err != nil {
			return err
		}
		if got, want := e.DstToString(), fmt.Sprintf("[fe80::2%%lo]:%d", answers.port); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		return asks.Send([][]byte{[]byte("hello")}, e)
	})
	d := answers.next()
	if d.from.SrcIP().String() != "fe80::2" || d.from.local.scope != 1 || d.from.remote.scope != 1 {
		t.Errorf("%+v", d.from)
	}
	answers.say(d.from, "and back")
	asks.hears("fe80::2", "and back")
}

func TestMarksAndPortsAreBothSockets(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "192.0.2.1")
	p := n.party()
	if err := p.SetMark(0x51); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*socket{p.v4.Load(), p.v6.Load()} {
		if got := s.LocalAddr().(*net.UDPAddr).Port; got != int(p.port) {
			t.Errorf("port %d, want %d", got, p.port)
		}
		err := s.raw.Control(func(fd uintptr) {
			if mark, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK); err != nil || mark != 0x51 {
				t.Errorf("mark %#x, %v", mark, err)
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
	if _, _, err := p.Open(p.port); !errors.Is(err, conn.ErrBindAlreadyOpen) {
		t.Errorf("a second open: %v", err)
	}
	n.do(func() error {
		if _, _, err := new(bind).Open(p.port); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("a port in use: %v", err)
		}
		return nil
	})
	if err := new(bind).Send([][]byte{{0}}, p.at("192.0.2.1")); !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Errorf("a bind that is closed: %v", err)
	}
}

func TestEndpointsReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1:51820": "192.0.2.1:51820", "[2001:db8::1]:51820": "[2001:db8::1]:51820", "[::ffff:192.0.2.1]:1": "192.0.2.1:1",
	} {
		e, err := parseEndpoint(text)
		if err != nil || e.DstToString() != want || e.SrcIP().IsValid() {
			t.Errorf("%s: %v, %v", text, e, err)
		}
	}
	for _, text := range []string{"192.0.2.1", "name:1", "[fe80::1%nowhere]:1", ""} {
		if e, err := parseEndpoint(text); err == nil {
			t.Errorf("%q is taken for %v", text, e)
		}
	}
}
