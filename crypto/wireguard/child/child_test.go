package child

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

// pipeTUN is a TUN whose packets come from a pipe, a byte each.
type pipeTUN struct {
	tun.Device
	r *os.File
}

func (p pipeTUN) File() *os.File { return p.r }

func (p pipeTUN) Read(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	sizes[0], err = p.r.Read(bufs[0][offset : offset+1])
	return 1, err
}

// gated returns a gate, what brings packets before it, and what has passed it.
func gated(t *testing.T) (g *gate, send func(string), passed <-chan byte) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	g = newGate(pipeTUN{r: r})
	through, ended := make(chan byte, 100), make(chan struct{})
	go func() {
		defer close(ended)
		bufs, sizes := make([][]byte, 4), make([]int, 4)
		for i := range bufs {
			bufs[i] = make([]byte, 20)
		}
		for {
			n, err := g.Read(bufs, sizes, 7)
			if err != nil {
				return
			}
			for i := range n {
				for _, b := range bufs[i][7 : 7+sizes[i]] {
					through <- b
				}
			}
		}
	}()
	t.Cleanup(func() { w.Close(); <-ended; r.Close() })
	return g, func(s string) { w.WriteString(s) }, through
}

func passes(t *testing.T, what string, passed <-chan byte, want string) {
	t.Helper()
	for i := range want {
		select {
		case b := <-passed:
			if b != want[i] {
				t.Fatalf("%s: packet %d is %q, want %q", what, i, b, want[i])
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: packet %d is held", what, i)
		}
	}
}

func held(t *testing.T, passed <-chan byte) {
	t.Helper()
	select {
	case <-passed:
		t.Fatal("the packet is not held")
	case <-time.After(50 * time.Millisecond):
	}
}

func TestPacketsAreHeldUntilTheyAreReleasedOrForgotten(t *testing.T) {
	g, send, passed := gated(t)
	send("ab")
	passes(t, "at first", passed, "ab")
	g.hold(time.Hour)
	g.hold(time.Hour)
	send("cdefghijkl")
	held(t, passed)
	g.release() // nothing else comes that would wake the reader
	passes(t, "after release", passed, "cdefghijkl")
	g.release()
	send("mn")
	passes(t, "and then", passed, "mn")
	g.hold(100 * time.Millisecond)
	send("op")
	passes(t, "after its time", passed, "op")
	g.hold(time.Hour)
	g.release()
	send("q")
	passes(t, "when none was held", passed, "q")
}

func TestWhatIsHeldHasABound(t *testing.T) {
	g := newGate(nil)
	g.hold(time.Hour)
	defer g.lease.Stop()
	packet, sizes := [][]byte{make([]byte, 1<<20)}, []int{1 << 20}
	for range 2 * maxKept >> 20 {
		g.keep(packet, sizes, 0)
	}
	if len(g.kept) != maxKept>>20 || g.size != maxKept {
		t.Errorf("%d packets of %d bytes are kept", len(g.kept), g.size)
	}
}

func TestTheJournalRepeatsNothingSoonAndKeepsWhatNobodyHears(t *testing.T) {
	now := time.Unix(0, 0)
	j := newJournal()
	j.now = func() time.Time { return now }
	for range 5 {
		j.sayf("no route to %s", "here")
	}
	j.sayf("something else")
	now = now.Add(repeat)
	j.sayf("no route to %s", "there")
	ours, theirs := net.Pipe()
	go j.follow(theirs)
	lines := bufio.NewScanner(ours)
	for _, want := range []string{"no route to here", "something else", "no route to there", "and now this"} {
		if want == "and now this" {
			for j.watchers() == 0 {
				time.Sleep(time.Millisecond)
			}
			j.sayf("and now this")
		}
		if !lines.Scan() || lines.Text() != want {
			t.Errorf("%q, want %q", lines.Text(), want)
		}
	}
	ours.Close()
	for deadline := time.Now().Add(10 * time.Second); j.watchers() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("who has gone is still written to")
		}
	}
	for i := range 2 * maxWaiting {
		now = now.Add(repeat)
		j.sayf("line %d", i)
	}
	if len(j.waiting) != maxWaiting {
		t.Errorf("%d lines wait", len(j.waiting))
	}
}

// served is a client of a device whose TUN nobody uses.
func served(t *testing.T) (*device.Device, *journal, func(request string) (string, error)) {
	t.Helper()
	says := newJournal()
	g := newGate(tuntest.NewChannelTUN().TUN())
	udp := &bind{}
	dev := device.NewDevice(g, udp, says.logger())
	t.Cleanup(dev.Close)
	s := &server{dev: dev, udp: udp, gate: g, says: says, greeter: newGreeter(dev)}
	return dev, says, func(request string) (string, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := fileConn(t, fds[0]), fileConn(t, fds[1])
		defer ours.Close()
		go s.serve(theirs)
		ours.SetDeadline(time.Now().Add(10 * time.Second))
		return exchange(ours, bufio.NewReader(ours), request)
	}
}

func TestRequestsAreAnsweredWithAnErrorNumber(t *testing.T) {
	_, says, ask := served(t)
	secret, peer := strings.Repeat("41", 32), strings.Repeat("ab", 32)
	for _, c := range []struct {
		request string
		says    string
		err     unix.Errno
	}{
		{"hello=1\n\n", fmt.Sprintf("version=%d\n", version), 0},
		{"set=1\nprivate_key=" + secret + "\n\n", "", 0},
		{"get=1\n\n", "private_key=" + "40" + secret[2:62] + "41\n", 0},
		{"set=1\nprivate_key " + secret + "\n\n", "", unix.EPROTO},
		{"set=1\npublic_key=" + peer + "\nendpoint=" + secret + "\n\n", "", unix.EINVAL},
		{"greet=1\npublic_key=" + peer + "\n\n", "", 0}, // its endpoint is not known
		{"poke=1\npublic_key=" + secret[1:] + "\n\n", "", unix.EINVAL},
		{"greet=1\nnonsense\n\n", "", unix.EINVAL},
		{"local=nowhere\n\n", "", unix.EINVAL},
		{"local=2001:db8::1\n\n", "", 0},
		{"hello=1\n\n", "local=2001:db8::1\nversion=", 0},
		{"local=\n\n", "", 0},
		{"hello=1\n\n", "version=", 0},
		{"hold=0\n\n", "", unix.EINVAL},
		{"hold=3600000\n\n", "", unix.EINVAL},
		{"hold=1000\n\n", "", 0},
		{"release=1\n\n", "", 0},
		{"sudo=1\n\n", "", unix.EOPNOTSUPP},
	} {
		said, err := ask(c.request)
		if c.err == 0 && err != nil || c.err != 0 && !errors.Is(err, c.err) || !strings.HasPrefix(said, c.says) {
			t.Errorf("%q: %q, %v", c.request, said, err)
		}
	}
	says.mu.Lock()
	defer says.mu.Unlock()
	if len(says.waiting) == 0 {
		t.Error("the refusals are not told of")
	}
	for _, line := range says.waiting {
		if strings.Contains(line, secret[:8]) {
			t.Errorf("a refusal quotes the request: %q", line)
		}
	}
}

func fileConn(t *testing.T, fd int) net.Conn {
	t.Helper()
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatADeviceSaysOfItsPeersIsRead(t *testing.T) {
	got := contacts("private_key=00\nlisten_port=1\nendpoint=of nobody\npublic_key=aa\nendpoint=192.0.2.1:1\nlast_handshake_time_sec=5\nfuture=1\n" +
		"public_key=bb\nlast_handshake_time_sec=0\n")
	want := map[string]contact{"aa": {"192.0.2.1:1", time.Unix(5, 0)}, "bb": {"", time.Unix(0, 0)}}
	if len(got) != len(want) || got["aa"] != want["aa"] || got["bb"] != want["bb"] {
		t.Errorf("%+v", got)
	}
}
