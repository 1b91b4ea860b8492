package bgp_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

type malformed struct {
	name  string
	open  []byte // nil: a right one
	after []byte // in the session
}

// written are what somebody thought of; those of gobgp#3325 and #3308 ended a GoBGP v3 process.
func written() []malformed {
	many := bytes.Repeat([]byte{0xfd, 0xe8, 0, 1}, 16000)
	hundredThousand := bytes.Repeat(good(attribute(0xc0, 8, many...)), 7)
	as4Path := attribute(0xc0, 17, 2, 1, 0, 0, 0xfd, 0xe8)
	length := func(m []byte, n uint16) []byte {
		binary.BigEndian.PutUint16(m[16:], n)
		return m
	}
	return []malformed{
		{"a message of unknown type (gobgp#3325)", nil, message(77)},
		{"AS4_PATH before AS_PATH (gobgp#3308)", nil, update(origin, as4Path, asPath, nextHop)},
		{"AS4_PATH alone", nil, update(origin, as4Path, nextHop)},
		{"a wrong marker", nil, append([]byte{1, 2, 3}, keepalive[3:]...)},
		{"a length below the header's", nil, length(message(2), 5)},
		{"a length beyond what follows", nil, length(message(2, []byte{0}), 60000)},
		{"a keepalive with a body", nil, message(4, []byte{1, 2, 3})},
		{"an update of nothing", nil, message(2)},
		{"withdrawn routes beyond the message", nil, message(2, []byte{0xff, 0xff, 0, 0})},
		{"attributes beyond the message", nil, message(2, []byte{0, 0, 0xff, 0xff})},
		{"an attribute beyond the attributes", nil, update([]byte{0x40, 1, 200})},
		{"no attributes at all", nil, update()},
		{"an origin that is none", nil, update(attribute(0x40, 1, 9), asPath, nextHop)},
		{"an origin of two bytes", nil, update(attribute(0x40, 1, 0, 0), asPath, nextHop)},
		{"an AS path of half a number", nil, update(origin, attribute(0x40, 2, 2, 1, 0, 0, 0xfd), nextHop)},
		{"an AS path of unknown segments", nil, update(origin, attribute(0x40, 2, 9, 1, 0, 0, 0xfd, 0xe8), nextHop)},
		{"a next hop of three bytes", nil, update(origin, asPath, attribute(0x40, 3, 1, 2, 3))},
		{"a next hop of all bits", nil, update(origin, asPath, attribute(0x40, 3, 255, 255, 255, 255))},
		{"every attribute twice", nil, good(origin, asPath, nextHop)},
		{"an unknown well-known attribute", nil, good(attribute(0x40, 200, 1))},
		{"unknown optional attributes", nil, good(attribute(0x80, 201, 1), attribute(0xc0, 202, 1))},
		{"attributes of every number, empty", nil, good(everyAttribute(nil))},
		{"attributes of every number, of 7 bytes", nil, good(everyAttribute([]byte{1, 2, 3, 4, 5, 6, 7}))},
		{"a giant unknown attribute", nil, good(attribute(0xc0, 203, make([]byte, 60000)...))},
		{"a hundred thousand communities", nil, hundredThousand},
		{"MP_REACH of an unknown family", nil, good(attribute(0x80, 14, 0, 99, 99, 4, 1, 2, 3, 4, 0, 24, 1, 2, 3))},
		{"MP_REACH with a next hop beyond it", nil, good(attribute(0x80, 14, 0, 2, 1, 255, 1, 2))},
		{"FlowSpec of nothing", nil, flowUpdate(1)},
		{"a FlowSpec rule that ends in a component", nil, flowUpdate(1, 4, 1, 24, 203, 0)},
		{"a FlowSpec rule of 240 octets, whose length GoBGP misreads", nil, flowUpdate(1, append([]byte{0xf0, 0xf0}, bytes.Repeat([]byte{5, 0x81, 1}, 80)...)...)},
		{"a FlowSpec rule longer than what follows", nil, flowUpdate(1, 0xff, 0xff, 1, 24, 203, 0, 113)},
		{"FlowSpec of unknown components", nil, flowUpdate(1, 3, 99, 0x81, 1)},
		{"a prefix of FlowSpec beyond its family", nil, flowUpdate(2, 5, 1, 200, 0, 1, 2)},
		{"an IPv6 prefix whose offset is beyond its length", nil, flowUpdate(2, 5, 1, 16, 99, 1, 2)},
		{"FlowSpec with half of an action", nil, update(origin, asPath, attribute(0xc0, 16, 0x80, 6, 0), flowSpec4())},
		{"MP_UNREACH of one byte", nil, good(attribute(0x80, 15, 0))},
		{"a prefix of 99 bits", nil, message(2, []byte{0, 0, 0, 0, 99, 1, 2, 3})},
		{"a notification of one byte", nil, message(3, []byte{6})},
		{"a notification of nothing", nil, message(3)},
		{"a shutdown whose text is longer than it is", nil, message(3, []byte{6, 2, 255, 'h', 'i'})},
		{"a shutdown whose text is no text", nil, message(3, []byte{6, 2, 4, 0xff, 0x1b, '[', 0})},
		{"a route refresh of one byte", nil, message(5, []byte{0})},
		{"a route refresh of an unknown family", nil, message(5, []byte{0, 99, 0, 99})},
		{"a second open", nil, openMessage()},
		{"an open of another version", message(1, []byte{3, 0xfd, 0xe8, 0, 90, 198, 18, 0, 100, 0}), nil},
		{"an open of another AS", message(1, []byte{4, 0, 1, 0, 90, 198, 18, 0, 100, 0}), nil},
		{"an open with a hold time of one second", message(1, []byte{4, 0xfd, 0xe8, 0, 1, 198, 18, 0, 100, 0}), nil},
		{"an open of router 0.0.0.0", message(1, []byte{4, 0xfd, 0xe8, 0, 90, 0, 0, 0, 0, 0}), nil},
		{"an open with parameters beyond it", message(1, []byte{4, 0xfd, 0xe8, 0, 90, 198, 18, 0, 100, 200, 2, 6}), nil},
		{"an open with a capability beyond it", message(1, []byte{4, 0xfd, 0xe8, 0, 90, 198, 18, 0, 100, 4, 2, 2, 1, 200}), nil},
		{"an update for an open", good(), nil},
		{"no open", keepalive, nil},
	}
}

func everyAttribute(value []byte) (all []byte) {
	for kind := 4; kind < 256; kind++ {
		all = append(all, attribute(0xc0, byte(kind), value...)...)
	}
	return all
}

// drawn are right messages with flipped bytes, or cut short with a length that says so.
func drawn(r *rand.Rand, n int) (out []malformed) {
	spoil := func(m []byte) []byte {
		m = bytes.Clone(m)
		if r.IntN(3) == 0 {
			m = m[:19+r.IntN(len(m)-19)]
			binary.BigEndian.PutUint16(m[16:], uint16(len(m)))
			return m
		}
		for range 1 + r.IntN(3) {
			m[19+r.IntN(len(m)-19)] ^= byte(1 << r.IntN(8))
		}
		return m
	}
	for i := range n {
		c := malformed{name: fmt.Sprintf("drawn %d", i)}
		switch r.IntN(4) {
		case 0:
			c.open = spoil(openMessage())
		case 1:
			c.after = spoil(message(3, []byte{6, 2, 5}, []byte("hello")))
		default:
			one := right()[r.IntN(len(right()))]
			for range 20 {
				c.after = append(c.after, spoil(one)...)
			}
		}
		out = append(out, c)
	}
	return out
}

// answered are those of written that nothing can be made of: a NOTIFICATION tells so before the session ends. Whether others have one is GoBGP's matter.
var answered = []string{ // never changed
	"a message of unknown type (gobgp#3325)",
	"a wrong marker",
	"a length below the header's",
	"withdrawn routes beyond the message",
	"attributes beyond the message",
	"a notification of nothing",
	"an open of another version",
	"an open of another AS",
	"an open with a hold time of one second",
	"an open of router 0.0.0.0",
	"an open with parameters beyond it",
	"an open with a capability beyond it",
	"an update for an open",
	"no open",
}

// converse dials from an address, opens a session, says what is wrong, and reads on until the gateway hangs up.
func (m malformed) converse(s *site, from net.IP) error {
	conn, err := s.dial(from)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := readMessage(conn); err != nil {
		return fmt.Errorf("its open: %w", err)
	}
	if m.open != nil {
		_, err = conn.Write(m.open)
	} else if _, err = conn.Write(append(openMessage(), keepalive...)); err == nil {
		if err := readMessage(conn); err != nil {
			return fmt.Errorf("its keepalive: %w", err)
		}
		_, err = conn.Write(m.after)
	}
	// It may have hung up before it had it all.
	if err == nil && conn.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
	return nil
}

// patient waits a minute for each step: a busy machine holds many conversations at once.
type patient struct{ *net.TCPConn }

func (p patient) Read(b []byte) (int, error) {
	if err := p.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	return p.TCPConn.Read(b)
}

func (p patient) Write(b []byte) (int, error) {
	if err := p.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	return p.TCPConn.Write(b)
}

func (s *site) dial(from net.IP) (conn patient, err error) {
	err = s.tors[0].Try(func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: time.Minute}
		dialed, err := d.Dial("tcp4", "198.18.0.2:179")
		if err == nil {
			conn = patient{dialed.(*net.TCPConn)}
		}
		return err
	})
	return conn, err
}

func readMessage(r io.Reader) error {
	head := make([]byte, 19)
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint16(head[16:]))-19)
	return err
}

func TestMalformedMessagesEndNothingButTheirOwnSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	honest := s.tor(t, 1, "", "198.51.100.0/24")
	gw := s.gw.Child(t, fresh)
	cases := append([]malformed{{"nothing wrong", nil, bytes.Join(right(), nil)}}, append(written(), drawn(rand.New(rand.NewPCG(7, 7)), 100)...)...)
	want := gateway(2, path("203.0.113.0/24"))
	want.Neighbors, want.Learn, want.FlowSpec = want.Neighbors[1:], everything(), bgp.FlowSpec{MaxRules: 10000, Keep: time.Hour}
	for i := range cases {
		a := fmt.Sprintf("198.18.0.%d", 100+i)
		s.tors[0].Address(t, "gw", a+"/32")
		want.Neighbors = append(want.Neighbors, bgp.Neighbor{Name: fmt.Sprintf("x-%03d", i), Address: addr(a), ASN: 65000, Passive: true,
			IPv4: true, IPv6: true, NextHop6: addr("2001:db8:1::2"), FlowSpec4: true, FlowSpec6: true})
		want.FlowSpec.AcceptFrom = append(want.FlowSpec.AcceptFrom, addr(a))
	}
	apply(t, gw, want)
	hears(t, honest, "203.0.113.0/24")
	since := uptime(t, honest)

	var conversations sync.WaitGroup
	for i, c := range cases {
		conversations.Go(func() {
			if err := c.converse(s, net.IPv4(198, 18, 0, byte(100+i))); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	conversations.Wait()

	// The process answers, and its other session is the same and carries news both ways.
	want.Paths = append(want.Paths, path("203.0.113.9/32"))
	apply(t, gw, want)
	hears(t, honest, "203.0.113.0/24", "203.0.113.9/32")
	if now := uptime(t, honest); another(now, since) {
		t.Errorf("the honest neighbor's session is of %s, and was of %s", now, since)
	}
	s.installs(t, "198.51.100.0/24 198.18.1.1\n")
	nstest.Eventually(t, time.Minute, func() string { // what was spoilt had been right: both rules of the first outlive its session
		kept := 0
		for _, r := range nstest.Must[struct{ Rules []string }](t, gw, "flowspec", nil).Rules {
			if strings.HasPrefix(r, "x-000: ") {
				kept++
			}
		}
		return nstest.Want("rules of who said nothing wrong", kept, 2)
	})
	peak := nstest.Must[int](t, gw, "peak", nil)
	if peak > 1<<20 {
		t.Errorf("%d KiB were in use at most", peak)
	}
	told := notifications(t, gw)
	t.Logf("%d conversations, each ended with an error, %d by a notification of ours; %d MiB in use at most", len(cases), len(told), peak>>10)
	for i, c := range cases {
		if slices.Contains(answered, c.name) && !told[fmt.Sprintf("x-%03d", i)] {
			t.Errorf("%s: was not answered", c.name)
		}
	}
	spoilt := map[string]bool{"MP_REACH of an unknown family": false, "a prefix of 99 bits": false, "a FlowSpec rule of 240 octets, whose length GoBGP misreads": true}
	for _, n := range nstest.Must[[]bgp.NeighborStatus](t, gw, "status", nil) {
		i := 0
		_, _ = fmt.Sscanf(n.Name, "x-%d", &i)
		want, asked := spoilt[cases[i].name]
		if is := strings.HasPrefix(n.LastError, "FlowSpec is left out"); asked && is != want {
			t.Errorf("%s: %s", cases[i].name, n.LastError)
		}
	}
}

// notifications waits until all sessions but the honest one are known to have ended, and says in which we sent one.
func notifications(t *testing.T, gw *nstest.Child) (sent map[string]bool) {
	t.Helper()
	nstest.Eventually(t, time.Minute, func() string { // it hangs up before it tells
		unnoticed := []string{}
		sent = map[string]bool{}
		for _, n := range nstest.Must[[]bgp.NeighborStatus](t, gw, "status", nil) {
			if n.LastError == "" && n.Name != "tor-b" {
				unnoticed = append(unnoticed, n.Name)
			}
			if n.Notification != nil && n.Notification.Sent {
				sent[n.Name] = true
			}
		}
		return nstest.Want("sessions that ended unnoticed", unnoticed, []string{})
	})
	return sent
}
