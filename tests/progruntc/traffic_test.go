package progruntc_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deadline bounds every wait for what should come, and patience the wait for what should not.
const (
	deadline = 10 * time.Second
	patience = 300 * time.Millisecond
)

func tcpAddr(address string, port uint16) string {
	return netip.AddrPortFrom(netip.MustParseAddr(address), port).String()
}

// serveTCP runs a server in n that sends back what it gets, until the test ends.
func (n namespace) serveTCP(t testing.TB, address string, port uint16) {
	t.Helper()
	var l net.Listener
	n.do(t, func() (err error) {
		l, err = net.Listen("tcp", tcpAddr(address, port))
		return err
	})
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// serveUDP does the same for datagrams.
func (n namespace) serveUDP(t testing.TB, address string, port uint16) {
	t.Helper()
	var c net.PacketConn
	n.do(t, func() (err error) {
		c, err = net.ListenPacket("udp", tcpAddr(address, port))
		return err
	})
	t.Cleanup(func() { c.Close() })
	go func() {
		buffer := make([]byte, 65536)
		for {
			size, from, err := c.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buffer[:size], from)
		}
	}()
}

// dial opens a connection from n, from an address of it.
func (n namespace) dial(network, from, to string, port uint16, wait time.Duration) (c net.Conn, err error) {
	err = n.run(func() error {
		d := net.Dialer{Timeout: wait}
		if from != "" {
			if network == "tcp" {
				d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
			} else {
				d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
			}
		}
		c, err = d.Dial(network, tcpAddr(to, port))
		return err
	})
	return c, err
}

// echo says hello to a server and waits for the same words, with TCP for the end of the connection too: no FIN of it
// is on its way when echo returns.
func (n namespace) echo(network, from, to string, port uint16, wait time.Duration) error {
	c, err := n.dial(network, from, to, port, wait)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	answer := make([]byte, 5)
	if _, err = io.ReadFull(c, answer); err != nil || network != "tcp" {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
		return fmt.Errorf("%d bytes after the answer: %w", len(rest), err)
	}
	return nil
}

func (n namespace) reaches(t *testing.T, network, from, to string, port uint16) {
	t.Helper()
	if err := n.echo(network, from, to, port, deadline); err != nil {
		t.Errorf("%s %s to %s port %d: %v", network, from, to, port, err)
	}
}

func (n namespace) doesNotReach(t *testing.T, network, from, to string, port uint16) {
	t.Helper()
	if err := n.echo(network, from, to, port, patience); !errors.Is(err, os.ErrDeadlineExceeded) && !isTimeout(err) {
		t.Errorf("%s %s to %s port %d: %v, want a timeout", network, from, to, port, err)
	}
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

// transfer sends size random bytes to an echo server and compares what comes back. during runs again and
// again meanwhile.
func transfer(c net.Conn, size int, during func() error) error {
	if err := c.SetDeadline(time.Now().Add(6 * deadline)); err != nil {
		return err
	}
	seed := [32]byte{1}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, io.LimitReader(rand.NewChaCha8(seed), int64(size)))
		sent <- err
	}()
	worked := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for during != nil && ctx.Err() == nil {
			if err := during(); err != nil {
				worked <- err
				return
			}
		}
		worked <- nil
	}()
	got := sha256.New()
	_, err := io.CopyN(got, c, int64(size))
	cancel()
	err = errors.Join(err, <-worked, <-sent)
	want := sha256.New()
	if _, e := io.Copy(want, io.LimitReader(rand.NewChaCha8(seed), int64(size))); e != nil {
		return e
	}
	if err == nil && !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return fmt.Errorf("%d bytes came back changed", size)
	}
	return err
}

// wire is a raw socket on an interface: it sees and sends whole frames.
type wire struct{ fd int }

// open opens a raw socket on an interface of n.
func (n namespace) open(t *testing.T, name string) *wire {
	t.Helper()
	w := &wire{}
	n.do(t, func() error {
		const all = 0x0300 // ETH_P_ALL in network byte order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		if err != nil {
			return err
		}
		w.fd = fd
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index})
	})
	t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

func (w *wire) send(t *testing.T, frame []byte) {
	t.Helper()
	if _, err := unix.Write(w.fd, frame); err != nil {
		t.Fatal(err)
	}
}

// await returns the first incoming frame that pleases.
func (w *wire) await(t *testing.T, pleases func(frame []byte) bool) []byte {
	t.Helper()
	end := time.Now().Add(deadline)
	buffer := make([]byte, 65536)
	for {
		left := time.Until(end)
		if left <= 0 {
			t.Fatal("the frame never came")
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		if ready < 1 {
			continue
		}
		size, from, err := unix.Recvfrom(w.fd, buffer, 0)
		if err != nil {
			t.Fatal(err)
		}
		if on, ok := from.(*unix.SockaddrLinklayer); ok && on.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if pleases(buffer[:size]) {
			return bytes.Clone(buffer[:size])
		}
	}
}

// hardwareAddr is the MAC address of an interface.
func (n namespace) hardwareAddr(t *testing.T, name string) net.HardwareAddr {
	t.Helper()
	var mac net.HardwareAddr
	n.do(t, func() error {
		i, err := net.InterfaceByName(name)
		if err == nil {
			mac = i.HardwareAddr
		}
		return err
	})
	return mac
}
