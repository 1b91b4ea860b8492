package netns

import (
	"bytes"
	bin "encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/cmd/lab"
)

// rawIP opens a socket for a protocol at an address of a host: the kernel makes the IP header, and no answer of its own.
func (p *pathSite) rawIP(ns *lab.Namespace, protocol int, at netip.Addr) *net.IPConn {
	p.t.Helper()
	network := fmt.Sprintf("ip4:%d", protocol)
	if at.Is6() {
		network = fmt.Sprintf("ip6:%d", protocol)
	}
	var conn *net.IPConn
	err := ns.Do(func() (err error) {
		conn, err = net.ListenIP(network, &net.IPAddr{IP: at.AsSlice()})
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// carriesRaw sends a payload from one raw socket to another and complains unless it comes out there as it was.
func carriesRaw(from, to *net.IPConn, payload []byte) error {
	target := to.LocalAddr().(*net.IPAddr)
	for range 3 { // datagrams may be lost
		if _, err := from.WriteTo(payload, target); err != nil {
			return err
		}
		if err := to.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			return err
		}
		buf := make([]byte, 2000)
		n, _, err := to.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err == nil && !bytes.Equal(buf[:n], payload) {
			err = fmt.Errorf("%x came out of %x", buf[:n], payload)
		}
		return err
	}
	return fmt.Errorf("nothing of protocol came from %s to %s", from.LocalAddr(), target)
}

// sctp is a chunk in a packet of its own (RFC 9260 sections 3.1 and 3.3.2).
func sctp(from, to uint16, kind byte) []byte {
	b := bin.BigEndian.AppendUint16(nil, from)
	b = bin.BigEndian.AppendUint16(b, to)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // verification tag of an INIT, and the checksum
	b = append(b, kind, 0, 0, 20, 1, 2, 3, 4, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 5, 6, 7, 8)
	bin.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func TestSCTPGREAndESPPassAndAreTrackedByWhatTheyHave(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	pairs := []struct{ web, other, client netip.Addr }{
		{lab.Web4[0], lab.Web4[1], lab.Client4}, {lab.Web6[0], lab.Web6[1], lab.Client6},
	}
	for _, a := range pairs {
		for protocol, payload := range map[int][2][]byte{
			132: {sctp(4000, 5000, 1), sctp(5000, 4000, 2)}, // INIT, INIT ACK
			47:  {append([]byte{0, 0, 8, 0}, make([]byte, 40)...), append([]byte{0, 0, 8, 0}, make([]byte, 60)...)},
			50:  {append([]byte{0, 0, 1, 0, 0, 0, 0, 1}, make([]byte, 40)...), append([]byte{0, 0, 2, 0, 0, 0, 0, 1}, make([]byte, 60)...)},
		} {
			what := fmt.Sprintf("protocol %d from %s", protocol, a.web)
			web, client, other := p.rawIP(p.Workload(1), protocol, a.web), p.rawIP(p.Client, protocol, a.client), p.rawIP(p.Workload(2), protocol, a.other)
			p.redirects(what, func() {
				if err := errors.Join(carriesRaw(web, client, payload[0]), carriesRaw(client, web, payload[1])); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}, []string{"tc web-1 forwarded", "tc eth0 delivered", "xdp eth0 established"})
			// Nobody asked for it at the other workload.
			n := p.moves(func() {
				if err := carriesRaw(client, other, payload[1]); err == nil {
					t.Errorf("%s: nobody asked, and it came", what)
				}
			})
			if n.packets["xdp eth0 default-drop"] == 0 {
				t.Errorf("%s: no drop of what nobody asked for:\n%s", what, n)
			}
			p.redirects(what+", between workloads", func() {
				if err := errors.Join(carriesRaw(web, other, payload[0]), carriesRaw(other, web, payload[1])); err != nil {
					t.Errorf("%s between workloads: %v", what, err)
				}
			}, []string{"tc web-1 delivered", "tc web-2 delivered"})
		}
	}
}

func TestEchoesWithoutPayloadAndWithTheSameIDPass(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	for _, server := range []netip.Addr{lab.Client4, lab.Client6} {
		p.redirects("echoes", func() {
			if err := p.reaches(p.Workload(1), server, "-s0"); err != nil {
				t.Error(err)
			}
			// Two hosts at once, both with id 7, and each again and again.
			var wait sync.WaitGroup
			for i := range 2 {
				wait.Go(func() {
					out := p.in(p.Workload(i+1), "ping", "-n", "-e7", "-c200", "-i0.002", "-W2", server.String())
					if !strings.Contains(out.out, " 200 received") {
						t.Errorf("web-%d: %s%s", i+1, out.out, out.err)
					}
				})
			}
			wait.Wait()
		}, []string{"tc web-1 forwarded", "tc web-2 forwarded", "tc eth0 delivered"})
	}
}

// icmp4 makes an ICMP message (RFC 792); rest is all behind the checksum.
func icmp4(kind, code byte, rest []byte) []byte {
	b := append([]byte{kind, code, 0, 0}, rest...)
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	bin.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}

// TestICMPThatIsNoEchoIsNotTrackedAndARedirectOfAWorkloadMovesNoRoute: a timestamp request goes out, and its reply is nobody's.
func TestICMPThatIsNoEchoIsNotTrackedAndARedirectOfAWorkloadMovesNoRoute(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	web, client := p.rawIP(p.Workload(1), unix.IPPROTO_ICMP, lab.Web4[0]), p.rawIP(p.Client, unix.IPPROTO_ICMP, lab.Client4)
	n := p.moves(func() {
		if err := carriesRaw(web, client, icmp4(13, 0, make([]byte, 16))); err != nil {
			t.Errorf("a timestamp request: %v", err)
		}
		eventually(t, func() error { // the client's kernel has answered
			if p.packets("xdp", "eth0", "default-drop") == 0 {
				return errors.New("no reply was dropped")
			}
			return nil
		})
	})
	if n.packets["tc web-1 forwarded"] == 0 {
		t.Errorf("a timestamp request:\n%s", n)
	}
	// A redirect that quotes a datagram of the box to the client, with the workload as the better router.
	quoted := make([]byte, 28)
	quoted[0], quoted[3], quoted[8], quoted[9] = 0x45, 28, 64, unix.IPPROTO_UDP
	copy(quoted[12:], lab.Gateway4.AsSlice())
	copy(quoted[16:], lab.Client4.AsSlice())
	before := p.must(p.Gateway.Namespace, "ip route get 198.51.100.10")
	redirect := icmp4(5, 1, append(lab.Web4[0].AsSlice(), quoted...))
	for range 3 {
		if _, err := web.WriteTo(redirect, &net.IPAddr{IP: lab.Gateway4.AsSlice()}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.reaches(p.Workload(1), lab.Gateway4); err != nil { // it is behind the redirects
		t.Error(err)
	}
	if after := p.must(p.Gateway.Namespace, "ip route get 198.51.100.10"); after != before {
		t.Errorf("a workload's redirect moved a route from %s to %s", before, after)
	}
}

// TestIPv6ExtensionHeadersPass: hop-by-hop and destination options of a datagram, which the parser follows.
func TestIPv6ExtensionHeadersPass(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	pad := string([]byte{0, 0, 1, 4, 0, 0, 0, 0}) // PadN of 4 (RFC 8200 section 4.2); the kernel sets the next header
	port := uint16(33434)
	for _, option := range []int{unix.IPV6_HOPOPTS, unix.IPV6_DSTOPTS} {
		for _, size := range []int{100, 4000} {
			for _, w := range []way{
				{from: p.Client, to: p.Workload(1), server6: lab.Web6[0], want: []string{"tc eth0 delivered"}},
				{from: p.Workload(1), to: p.Client, server6: lab.Client6, want: []string{"tc web-1 forwarded", "tc eth0 judged"}},
				{from: p.Workload(1), to: p.Workload(2), server6: lab.Web6[1], want: []string{"tc web-1 delivered"}},
			} {
				what := fmt.Sprintf("option %d from %s, %d bytes", option, w.from.Name, size)
				p.redirects(what, func() {
					if err := p.withOption(w, port, option, pad, size); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				}, w.want)
				port++
			}
		}
	}
}

// withOption sends a datagram whose socket has an IPv6 option, and waits for it at the other end.
func (p *pathSite) withOption(w way, port uint16, option int, value string, size int) error {
	p.t.Helper()
	heard := p.hear(w.to, netip.AddrPortFrom(w.server6, port))
	return w.from.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptString(fd, unix.IPPROTO_IPV6, option, value); err != nil {
			return fmt.Errorf("set option %d: %w", option, err)
		}
		to := &unix.SockaddrInet6{Port: int(port), Addr: w.server6.As16()}
		deadline := time.Now().Add(2 * time.Second)
		for time.Now().Before(deadline) {
			if err := unix.Sendto(fd, make([]byte, size), 0, to); err != nil {
				return err
			}
			for range 10 {
				if heard.total() > 0 {
					return nil
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		return errors.New("nothing came")
	})
}
