package netns

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/tests/nstest"
)

// bigDatagram is more than two packets hold.
const bigDatagram = 4000

// asks sends a datagram of size bytes from a namespace's address and waits for as much in answer.
func (s *site) asks(ns *lab.Namespace, from netip.Addr, to netip.AddrPort, size int, wait time.Duration) error {
	return ns.Do(func() error {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write(make([]byte, size)); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		n, err := conn.Read(make([]byte, size+1))
		if err == nil && n != size {
			return fmt.Errorf("%d bytes came back of %d", n, size)
		}
		return err
	})
}

// answersBig answers every datagram with itself until the test ends.
func (s *site) answersBig(ns *lab.Namespace, at netip.AddrPort) {
	s.t.Helper()
	var conn *net.UDPConn
	if err := ns.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	nstest.Roomy(s.t, conn)
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
}

const (
	webBare = "[203.0.113.10, \"2001:db8:100::10\"]\n    ingress: {default: drop, rules: ["
	webBig  = "[203.0.113.10, \"2001:db8:100::10\"]\n    ingress: {default: drop, rules: [{name: big, protocol: udp, ports: [5300], action: accept}, "
	// with the egress of both workloads alike, the edit of this one reaches to it
	webRest = "{name: web, protocol: tcp, ports: [80], action: accept}]}\n    egress: {default: drop, "

	ingressTop = "  ingress:\n    default: drop\n"
)

// TestDatagramsInFragmentsPassWithTrack: of both families, into a workload and back out, through XDP and tcx, while fragments of
// nobody's datagram do not.
func TestDatagramsInFragmentsPassWithTrack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const before = "      - {name: no-attackers,"
	s.edit(before, "      - {name: big, to: [web-1], protocol: udp, ports: [5300], action: accept}\n"+before,
		webBare, webBig)
	s.start()
	s.established()
	type way struct {
		from, to netip.Addr
	}
	ways := []way{{lab.Client4, lab.Web4[0]}, {lab.Client6, lab.Web6[0]}}
	for _, w := range ways {
		at := netip.AddrPortFrom(w.to, 5300)
		s.answersBig(s.Workload(1), at)
		eventually(t, func() error { return s.asks(s.Client, w.from, at, 100, time.Second) })
		s.counts("xdp", "eth0", "fragment-default-drop", func() {
			if err := s.asks(s.Client, w.from, at, bigDatagram, 500*time.Millisecond); err == nil {
				t.Errorf("%s: a datagram in fragments was answered without track", w.to)
			}
		})
	}

	const tracked = "fragments: track, "
	s.edit(ingressTop, ingressTop+"    fragments: track\n",
		webBig+webRest, strings.Replace(webBig, "rules:", tracked+"rules:", 1)+webRest+tracked)
	s.apply()
	for _, w := range ways {
		at := netip.AddrPortFrom(w.to, 5300)
		eventually(t, func() error { return s.asks(s.Client, w.from, at, bigDatagram, time.Second) })
	}
	if n := s.packets("xdp", "eth0", "fragment-tracked"); n < 4 {
		t.Errorf("%d later fragments were followed, want at least 4", n)
	}
	s.counts("xdp", "eth0", "fragment-default-drop", func() {
		s.send(frame(t, "udp 198.51.100.99 > 203.0.113.10 frag=1480"))
	})
	why := s.sluice("explain", "--in", "eth0", "--packet", "udp 198.51.100.99 > 203.0.113.10 frag=1480")
	if !strings.Contains(why.out, "fragment-default-drop") || strings.Contains(why.out, "bug") {
		t.Errorf("explain of a fragment: %+v", why)
	}
}
