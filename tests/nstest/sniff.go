package nstest

import (
	"encoding/binary"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Sniffer is a socket that sees the frames of a link.
type Sniffer struct{ fd int }

// Sniff gives see every frame that crosses a link from now until the test ends, in both directions, from the Ethernet header
// on and one at a time. The frame is overwritten when see returns. do runs a function in the link's network namespace.
func Sniff(t testing.TB, do func(testing.TB, func() error), link string, see func(frame []byte)) *Sniffer {
	t.Helper()
	s := &Sniffer{}
	do(t, func() (err error) {
		all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}) // in network byte order
		i, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		if err := unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}); err != nil {
			return err
		}
		// Room for every frame of a test: what the socket drops, nobody judges.
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000})
	})
	quit, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(quit); <-done; _ = unix.Close(s.fd) })
	go func() {
		defer close(done)
		frame := make([]byte, 1<<16)
		for {
			select {
			case <-quit:
				return
			default:
			}
			if n, _, err := unix.Recvfrom(s.fd, frame, 0); err == nil {
				see(frame[:n])
			}
		}
	}()
	return s
}

// Complete fails the test if the socket has dropped a frame since the last call.
func (s *Sniffer) Complete(t testing.TB) {
	t.Helper()
	stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Drops != 0 {
		t.Fatalf("the capture has lost %d of %d frames", stats.Drops, stats.Packets)
	}
}
