package probe

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/tests/nstest"
)

// listening is a Pinger whose answers can be waited for.
func listening(t *testing.T) (*Pinger, chan Answer) {
	t.Helper()
	answers := make(chan Answer, 100)
	p := NewPinger(func(a Answer) { answers <- a })
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, answers
}

func (p *Pinger) mustPing(t *testing.T, link, to string, tag uint64) {
	t.Helper()
	if err := p.Ping(link, netip.MustParseAddr(to), tag); err != nil {
		t.Fatal(err)
	}
}

// next is the answer that comes next.
func next(t *testing.T, answers chan Answer) Answer {
	t.Helper()
	select {
	case a := <-answers:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("no answer in 10 s")
		return Answer{}
	}
}

func TestAPingIsAnsweredWithItsTag(t *testing.T) {
	twoNamespaces(t)
	p, answers := listening(t)
	for i, to := range []string{"198.18.0.2", "2001:db8::2", "::ffff:198.18.0.2"} {
		tag := uint64(i)<<32 | 0xfffff
		sent := time.Now()
		p.mustPing(t, "eth0", to, tag)
		a := next(t, answers)
		if a.Tag != tag || a.From != netip.MustParseAddr(to).Unmap() || a.At.Before(sent) {
			t.Errorf("%s, sent at %s: %+v", to, sent, a)
		}
	}
}

// The other way is the better one by every route; what is asked for by an interface goes by that one.
func TestAPingGoesByItsInterfaceAlone(t *testing.T) {
	_, there := twoNamespaces(t)
	nstest.IP(t, "link add eth1 type veth peer name void")
	nstest.IP(t, "link set eth1 up")
	nstest.IP(t, "addr add 198.18.1.1/24 dev eth1")
	nstest.IP(t, "addr add 2001:db8:1::1/64 dev eth1 nodad")
	there.Address(t, "lo", "10.20.0.1/32", "fd00:20::1/128")
	mac := link(t, there, "peer0").Attrs().HardwareAddr.String()
	p, answers := listening(t)
	ask := func(link string, tag uint64, addresses ...string) {
		t.Helper()
		for i, to := range addresses {
			p.mustPing(t, link, to, tag+uint64(i))
		}
	}
	hear := func(why string, tags ...uint64) {
		t.Helper()
		for _, want := range tags {
			if a := next(t, answers); a.Tag != want {
				t.Errorf("%s: the answer has tag %d, want %d", why, a.Tag, want)
			}
		}
	}
	// The neighbor is known: an interface that is no tunnel asks for it otherwise, and a prefix on the link has none.
	for _, to := range []string{"10.20.0.1", "fd00:20::1"} {
		nstest.IP(t, "neigh replace "+to+" lladdr "+mac+" nud permanent dev eth0")
	}
	for _, route := range []string{"10.20.0.0/16", "fd00:20::/64"} {
		nstest.IP(t, "route add "+route+" dev eth1 metric 1")
		nstest.IP(t, "route add "+route+" dev eth0 metric 100")
	}
	ask("eth1", 1, "10.20.0.1", "fd00:20::1")
	ask("eth0", 3, "10.20.0.1")
	hear("the route by eth0 is the worse one", 3)
	ask("eth0", 4, "fd00:20::1")
	hear("the route by eth0 is the worse one", 4)
	nstest.IP(t, "route del 10.20.0.0/16 dev eth0")
	nstest.IP(t, "route del 10.20.0.0/16 dev eth1")
	nstest.IP(t, "route add blackhole 10.20.0.0/16 metric 4294967295")
	ask("eth0", 5, "10.20.0.1")
	hear("the route is withdrawn and a blackhole stands there", 5)
	if err := p.Ping("eth9", netip.MustParseAddr("10.20.0.1"), 6); err == nil {
		t.Error("a ping by an interface that is not there is sent")
	}
}

// Nothing that another process asked for is an answer, and its messages do not even wake the reader.
func TestOnlyAnswersToThePingerItselfAreHeard(t *testing.T) {
	twoNamespaces(t)
	one, heard := listening(t)
	other, others := listening(t)
	for _, to := range []string{"198.18.0.2", "2001:db8::2"} {
		one.mustPing(t, "eth0", to, 1) // both have their sockets from here on
		other.mustPing(t, "eth0", to, 2)
		if a := next(t, heard); a.Tag != 1 {
			t.Errorf("%s: tag %d", to, a.Tag)
		}
		a := next(t, others)
		if a.Tag == 1 { // it came between the socket and its filter
			a = next(t, others)
		}
		if a.Tag != 2 {
			t.Errorf("%s: tag %d", to, a.Tag)
		}
	}
	if _, err := New(Options{Interval: 20 * time.Millisecond}).Reach(t.Context(), netip.MustParseAddr("198.18.0.2")); err != nil {
		t.Error(err)
	}
	one.mustPing(t, "eth0", "198.18.0.2", 7)
	if a := next(t, heard); a.Tag != 7 || len(heard) > 0 {
		t.Errorf("%+v, and %d more", a, len(heard))
	}
	other.mustPing(t, "eth0", "198.18.0.2", 8) // its filter has stood for long: nothing comes before
	if a := next(t, others); a.Tag != 8 || len(others) > 0 {
		t.Errorf("%+v, and %d more", a, len(others))
	}
}

func TestAClosedPingerSaysSo(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := NewPinger(func(Answer) {})
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Ping("lo", netip.MustParseAddr("127.0.0.1"), 1); err == nil {
		t.Error("it pings")
	}
}

func TestAnAnswerCameWhenTheKernelHadItNotWhenItWasRead(t *testing.T) {
	now := time.Now()
	stamp := func(at time.Time) []byte {
		b := make([]byte, unix.CmsgSpace(16))
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_TIMESTAMPNS
		h.SetLen(unix.CmsgLen(16))
		data := b[unix.CmsgLen(0):]
		binary.NativeEndian.PutUint64(data, uint64(at.Unix()))
		binary.NativeEndian.PutUint64(data[8:], uint64(at.Nanosecond()))
		return b
	}
	for _, c := range []struct {
		what     string
		controls []byte
		earlier  time.Duration
	}{
		{"7 ms ago", stamp(now.Add(-7 * time.Millisecond)), 7 * time.Millisecond},
		{"the clock was set back", stamp(now.Add(time.Hour)), 0},
		{"the clock was set forward", stamp(now.Add(-time.Hour)), 0},
		{"nothing said", nil, 0},
	} {
		if got := now.Sub(arrival(c.controls, now)); got != c.earlier {
			t.Errorf("%s: %s before it was read", c.what, got)
		}
	}
	twoNamespaces(t)
	p, answers := listening(t)
	p.mustPing(t, "eth0", "198.18.0.2", 1) // the second one waits for the reader
	next(t, answers)
	sent := time.Now()
	p.mustPing(t, "eth0", "198.18.0.2", 2)
	if a, read := next(t, answers), time.Now(); a.At.Before(sent) || a.At.After(read) {
		t.Errorf("sent at %s, came at %s, read at %s", sent, a.At, read)
	}
}
