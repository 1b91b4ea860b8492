package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Capture looks at every frame of a link, in both directions.
type Capture struct {
	fd      int
	markers [][]byte
	stop    chan struct{}
	done    chan struct{} // closed when the reader has ended; what follows is the reader's until then
	seen    Seen
	err     error
}

// Seen is what a capture saw.
type Seen struct {
	Frames  int
	Tunnel  int   // UDP datagrams to or from the tunnel's port
	Markers []int // frames that held the marker, by marker
	Marked  []Marked
	Missed  int // frames that the kernel had no room for: then nothing is proved
}

// Marked is the beginning of a frame that held a marker; of the first few of a capture.
type Marked struct {
	At    time.Time
	Frame []byte
}

func (m Marked) String() string {
	return fmt.Sprintf("%s %x", m.At.UTC().Format("15:04:05.000"), m.Frame)
}

// markedFrames of markedBytes are kept.
const (
	markedFrames = 8
	markedBytes  = 54 // Ethernet, IPv6
)

// captureBuffer is the kernel's queue for the capture, in bytes; captureWait is how often a silent link is left to see
// whether the capture is to stop.
const (
	captureBuffer = 32 << 20
	captureWait   = 50 * time.Millisecond
)

// StartCapture looks at a link of the namespace until Stop.
func (n *Namespace) StartCapture(link string, markers ...string) (*Capture, error) {
	fd, err := n.packetSocket(link)
	if err != nil {
		return nil, err
	}
	c := &Capture{fd: fd, stop: make(chan struct{}), done: make(chan struct{}), seen: Seen{Markers: make([]int, len(markers))}}
	for _, m := range markers {
		c.markers = append(c.markers, []byte(m))
	}
	timeout := unix.NsecToTimeval(captureWait.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	if err == nil {
		err = n.listenAll(fd, link)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture on %s in %s: %w", link, n.Name, err), unix.Close(fd))
	}
	go c.run()
	return c, nil
}

// listenAll binds once more, now that the buffer is there: to every EtherType.
func (n *Namespace) listenAll(fd int, link string) error {
	l, err := n.nl.LinkByName(link)
	if err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: l.Attrs().Index})
}

// networkOrder is the value whose bytes in memory are v's in network byte order.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (c *Capture) run() {
	defer close(c.done)
	frame := make([]byte, 1<<17) // with segmentation offload a veth carries up to 64 KB in a frame
	flags, again := 0, false
	for {
		select {
		case <-c.stop:
			// The link never falls silent: from here on the queue need only be empty for a moment.
			flags = unix.MSG_DONTWAIT
		default:
		}
		n, _, err := unix.Recvfrom(c.fd, frame, flags)
		switch {
		case err == nil:
			c.look(frame[:n])
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && flags == 0:
		case errors.Is(err, unix.EAGAIN) && !again: // what was sent may still be on its way to the queue
			again = true
			time.Sleep(captureWait)
		case errors.Is(err, unix.EAGAIN):
			return
		default:
			c.err = err
			return
		}
	}
}

func (c *Capture) look(frame []byte) {
	c.seen.Frames++
	if toTunnel(frame) {
		c.seen.Tunnel++
	}
	for i, m := range c.markers {
		if bytes.Contains(frame, m) {
			c.seen.Markers[i]++
			if len(c.seen.Marked) < markedFrames {
				c.seen.Marked = append(c.seen.Marked, Marked{time.Now(), bytes.Clone(frame[:min(len(frame), markedBytes)])})
			}
		}
	}
}

// Stop ends the capture, once the frames that are in its queue are looked at.
func (c *Capture) Stop() (Seen, error) {
	close(c.stop)
	<-c.done
	stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil {
		c.seen.Missed = int(stats.Drops)
	}
	return c.seen, errors.Join(c.err, err, unix.Close(c.fd))
}

// toTunnel says whether an Ethernet frame is IPv4 with UDP to or from the tunnel's port, on the way between the ends.
func toTunnel(frame []byte) bool {
	const ethernet, minIPv4 = 14, 20
	if len(frame) < ethernet+minIPv4 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
		return false
	}
	ip := frame[ethernet:]
	header := int(ip[0]&0x0f) * 4
	if ip[9] != unix.IPPROTO_UDP || len(ip) < header+4 {
		return false
	}
	from, _ := netip.AddrFromSlice(ip[12:16])
	to, _ := netip.AddrFromSlice(ip[16:20])
	source, destination := binary.BigEndian.Uint16(ip[header:]), binary.BigEndian.Uint16(ip[header+2:])
	return (from == Gateway4 && source == TunnelPort) || (to == Gateway4 && destination == TunnelPort)
}
