package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/tests/bench/lane"
)

// What bpf/watch.c is compiled with.
const (
	frames  = 1 << 23 // seven minutes at 20,000 a second
	payload = 14 + 20 + 8
	magic   = 0x534c4643
)

// wire is a link out of which frames are sent, and the MAC address of the box behind it.
type wire struct {
	from     *lane.Namespace
	ifindex  int
	mac, box net.HardwareAddr
}

// newWire finds the only veth of a namespace, and the box's link that it leads to.
func newWire(from *lane.Namespace, box *lane.Namespace, boxLink string) (*wire, error) {
	w := &wire{from: from}
	err := from.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Type() == "veth" {
				w.ifindex, w.mac = l.Attrs().Index, l.Attrs().HardwareAddr
			}
		}
		return err
	})
	if err != nil || w.ifindex == 0 {
		return nil, errors.Join(err, errors.New("no veth leads to the box"))
	}
	return w, box.Do(func() error {
		l, err := netlink.LinkByName(boxLink)
		if err != nil {
			return err
		}
		w.box = l.Attrs().HardwareAddr
		return nil
	})
}

// socket opens an AF_PACKET socket that sends there, past the queueing discipline.
func (w *wire) socket() (fd int, err error) {
	err = w.from.Do(func() error {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: w.ifindex}),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1))
	})
	return fd, err
}

// frame is a UDP packet of 64 bytes, without a UDP checksum, so that its number can be written into it.
func (w *wire) frame(src, dst netip.AddrPort) []byte {
	const length = 64
	f := make([]byte, length)
	copy(f, w.box)
	copy(f[6:], w.mac)
	be := binary.BigEndian
	be.PutUint16(f[12:], unix.ETH_P_IP)
	ip := f[14:34]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	be.PutUint16(ip[2:], length-14)
	copy(ip[12:], src.Addr().AsSlice())
	copy(ip[16:], dst.Addr().AsSlice())
	be.PutUint16(ip[10:], checksum(ip))
	be.PutUint16(f[34:], src.Port())
	be.PutUint16(f[36:], dst.Port())
	be.PutUint16(f[38:], length-34)
	be.PutUint32(f[payload:], magic)
	return f
}

// checksum is that of RFC 1071, over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// watch sends numbered frames through a lane at a steady rate, and knows which arrived.
type watch struct {
	wire  *wire
	seen  *ebpf.Variable
	close func() error
}

func newWatch(objects *ebpf.CollectionSpec, site *lane.Site) (*watch, error) {
	wire, err := newWire(site.Generator, site.Box, lane.Uplink)
	if err != nil {
		return nil, err
	}
	c, err := ebpf.NewCollection(objects)
	if err != nil {
		return nil, fmt.Errorf("load watch.c: %w", err)
	}
	w := &watch{wire: wire, seen: c.Variables["seen"], close: func() error { c.Close(); return nil }}
	err = site.Sink.Do(func() error {
		far, err := newWire(site.Sink, site.Box, lane.Downlink)
		if err != nil {
			return err
		}
		// In front of the lane's own, behind which nothing is left.
		l, err := link.AttachTCX(link.TCXOptions{Interface: far.ifindex, Program: c.Programs["watch"], Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
		if err != nil {
			return fmt.Errorf("attach watch.c: %w", err)
		}
		w.close = func() error { defer c.Close(); return l.Close() }
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// Trace is what became of frames. Frame n is of probe n modulo their number.
type Trace struct {
	Sent []time.Duration // since the command began, so those before it are below zero
	Seen []bool          // it arrived
	Took time.Duration   // the command

	Refused map[int]bool // by the wire, which was full: nobody judged them
}

// Before and after the command frames are sent for this long.
const (
	leadIn  = 200 * time.Millisecond
	leadOut = 300 * time.Millisecond
)

// during sends frames from sources in turn, rate a second, while a command runs, and a while before and after it.
func (w *watch) during(ctx context.Context, sources []netip.Addr, rate int, command func() error) (*Trace, error) {
	if err := w.seen.Set(make([]byte, frames)); err != nil {
		return nil, err
	}
	templates := make([][]byte, len(sources))
	for i, source := range sources {
		templates[i] = w.wire.frame(netip.AddrPortFrom(source, 4000), netip.MustParseAddrPort("10.0.0.9:443"))
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := &sending{begin: time.Now(), at: make([]time.Duration, 0, frames), refused: map[int]bool{}, first: make(chan struct{})}
	sent := make(chan error, 1)
	go func() { sent <- w.send(ctx, templates, rate, s) }()
	select {
	case <-s.first: // on a busy machine it takes its time
	case err := <-sent:
		return nil, errors.Join(err, ctx.Err())
	}
	time.Sleep(leadIn)
	start := time.Now()
	err := command()
	took := time.Since(start)
	time.Sleep(leadOut)
	stop()
	if err := errors.Join(err, <-sent); err != nil {
		return nil, err
	}
	seen := make([]byte, frames)
	if err := w.seen.Get(seen); err != nil {
		return nil, err
	}
	t := &Trace{Took: took, Refused: s.refused, Sent: make([]time.Duration, len(s.at)), Seen: make([]bool, len(s.at))}
	for i, at := range s.at {
		t.Sent[i], t.Seen[i] = at-start.Sub(s.begin), seen[i] != 0
	}
	return t, nil
}

// sending is what a generator did.
type sending struct {
	begin   time.Time
	at      []time.Duration // since then, by number
	refused map[int]bool
	first   chan struct{} // closed behind the first frame
}

// send sends until ctx ends. The thread has a fixed priority, or the steady rate would pause whenever the command wants
// both processors. A frame is judged within the call that sends it, in the softirq behind it.
func (w *watch) send(ctx context.Context, templates [][]byte, rate int, s *sending) error {
	runtime.LockOSThread() // and never unlocked: the thread ends with its priority
	fd, err := w.wire.socket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
		return fmt.Errorf("SCHED_FIFO for the generator: %w", err)
	}
	const tick = 500 * time.Microsecond
	for n := 1; ctx.Err() == nil; n++ {
		for due := int(time.Duration(n) * tick * time.Duration(rate) / time.Second); len(s.at) < due; {
			number := len(s.at)
			if number == frames {
				return fmt.Errorf("the command took longer than %d frames", frames)
			}
			f := templates[number%len(templates)]
			binary.BigEndian.PutUint32(f[payload+4:], uint32(number))
			s.at = append(s.at, time.Since(s.begin))
			switch err := write(fd, f); {
			case errors.Is(err, unix.ENOBUFS):
				s.refused[number] = true
			case err != nil:
				return fmt.Errorf("send a frame: %w", err)
			}
			if number == 0 {
				close(s.first)
			}
		}
		if pause := time.Until(s.begin.Add(time.Duration(n) * tick)); pause > 0 {
			t := unix.NsecToTimespec(int64(pause))
			_ = unix.Nanosleep(&t, nil) // an interrupted one only ends early
		}
	}
	return nil
}

// write is the system call, again where a signal came between.
func write(fd int, f []byte) error {
	for {
		if _, err := unix.Write(fd, f); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
