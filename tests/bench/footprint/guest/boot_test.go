//go:build vmguest

package guest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// mark prints a time since the kernel began, for the host to read.
func mark(what string, at time.Duration) { fmt.Printf("BOOT %s %d\n", what, at.Microseconds()) }

// now is the time since the kernel began.
func now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// TestBoot starts the daemon, as an init would, once with each configuration below /boxes, and finds the first packet
// that XDP drops. Between two of them everything is taken away.
func TestBoot(t *testing.T) {
	mark("payload", now())
	init, err := strconv.ParseInt(os.Getenv("VMTEST_INIT"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	mark("init", time.Duration(init))
	w := newWire(t)
	boxes, err := filepath.Glob("/boxes/*")
	if err != nil || len(boxes) == 0 {
		t.Fatalf("no boxes: %v", err)
	}
	for _, dir := range boxes {
		size, log := filepath.Base(dir), new(bytes.Buffer)
		cmd := exec.Command("/bin/sluice", "run", "-c", filepath.Join(dir, "sluice.yaml"), "--log-level", "debug",
			"--state-dir", "/tmp/state-"+size, "--bpf-dir", "/sys/fs/bpf/box", "--socket", "/tmp/sock-"+size)
		cmd.Stdout, cmd.Stderr = log, log
		t.Cleanup(func() {
			if t.Failed() {
				fmt.Printf("the daemon said:\n%s", log)
			}
		})
		w.reset()
		start := now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		filtered := w.waitFiltered(t)
		down := exec.Command("/bin/sluice", "down", "--state-dir", "/tmp/state-"+size, "--bpf-dir", "/sys/fs/bpf/box", "--socket", "/tmp/sock-"+size)
		mark("start-"+size, start)
		mark("filtered-"+size, filtered)
		if said, err := down.CombinedOutput(); err != nil {
			t.Errorf("sluice down: %v\n%s", err, said)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "msg=took") {
				fmt.Printf("BOOTLOG %s %s", size, line)
			}
		}
	}
}

// kinds of frames: from an address that is listed, and from one that is not.
const kinds = 2

// wire is a veth with a sender of numbered frames at its far end and a tap at its near one: XDP of the driver is in front
// of taps, so what it drops no tap sees.
type wire struct {
	sent [kinds]atomic.Int64 // number of the next frame
	at   [kinds][]time.Duration
	seen [kinds]atomic.Int64 // number of the last frame that the tap saw, -1: none
}

const most = 1 << 20 // frames of a kind

func newWire(t *testing.T) *wire {
	w := &wire{}
	for k := range w.at {
		w.at[k] = make([]time.Duration, most)
	}
	w.reset()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	far, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	runtime.UnlockOSThread()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "tor", PeerNamespace: netlink.NsFd(far)}); err != nil {
		t.Fatal(err)
	}
	near := up(t, "uplink")
	go w.tap(t, socket(t, near.Index, unix.ETH_P_IP))
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(far); err != nil {
			t.Error(err)
			return
		}
		tor := up(t, "tor")
		w.send(socket(t, tor.Index, 0), near.HardwareAddr, tor.HardwareAddr)
	}()
	return w
}

func up(t *testing.T, name string) *netlink.LinkAttrs {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		t.Error(err)
		return &netlink.LinkAttrs{}
	}
	return l.Attrs()
}

// socket is an AF_PACKET socket on a link; protocol 0 receives nothing.
func socket(t *testing.T, ifindex int, protocol uint16) int {
	raw := protocol<<8 | protocol>>8 // in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(raw))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex, Protocol: raw})
	}
	if err != nil {
		t.Error(err)
	}
	return fd
}

// Where in a frame the last byte of its source and its number stand.
const (
	lastByte = 14 + 15
	number   = 14 + 20 + 8
)

// send sends a frame of each kind every two milliseconds: 192.0.2.1 is in every list, 198.51.100.1 in none.
func (w *wire) send(fd int, to, from []byte) {
	var frames [kinds][]byte
	for k, source := range [kinds][4]byte{{192, 0, 2, 1}, {198, 51, 100, 1}} {
		f := make([]byte, 64)
		copy(f, to)
		copy(f[6:], from)
		copy(f[12:], []byte{8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, unix.IPPROTO_UDP})
		copy(f[26:], source[:])
		copy(f[30:], []byte{198, 18, 0, 1})
		binary.BigEndian.PutUint16(f[24:], checksum(f[14:34]))
		copy(f[34:], []byte{16, 0, 16, 0, 0, 30})
		frames[k] = f
	}
	for range time.Tick(2 * time.Millisecond) {
		for k, f := range frames {
			n := w.sent[k].Load()
			if n == most {
				return
			}
			w.at[k][n] = now()
			binary.BigEndian.PutUint32(f[number:], uint32(n))
			w.sent[k].Store(n + 1)
			if _, err := unix.Write(fd, f); err != nil && err != unix.EINTR && err != unix.ENETDOWN {
				fmt.Println("send:", err)
				return
			}
		}
	}
}

// checksum is that of RFC 1071.
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

func (w *wire) tap(t *testing.T, fd int) {
	buf := make([]byte, 2048)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Error(err)
			return
		}
		if n < 64 || buf[34] != 16 || buf[36] != 16 {
			continue
		}
		k := map[byte]int{192: 0, 198: 1}[buf[lastByte-3]]
		w.seen[k].Store(int64(binary.BigEndian.Uint32(buf[number:])))
	}
}

func (w *wire) reset() {
	for k := range w.seen {
		w.seen[k].Store(-1)
	}
}

// waitFiltered waits until frames of the list have stayed away for a while and others have not, and returns when the first
// that stayed away was sent.
func (w *wire) waitFiltered(t *testing.T) time.Duration {
	const row = 100
	deadline := time.Now().Add(2 * time.Minute)
	for ; time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		listed, other, sent := w.seen[0].Load(), w.seen[1].Load(), w.sent[0].Load()
		if listed >= 0 && sent-listed > row && other-listed > row/2 {
			return w.at[0][listed+1]
		}
	}
	t.Fatalf("nothing was filtered: frame %d of %d was the last of the list to arrive, %d the last of others", w.seen[0].Load(), w.sent[0].Load(), w.seen[1].Load())
	return 0
}
