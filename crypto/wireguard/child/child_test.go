package child

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/process"

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

// served is a client of a device whose TUN nobody uses, in this very process, and what the device says.
func served(t *testing.T) (c *Client, says chan string) {
	t.Helper()
	netns, err := process.NetNS(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	place := At(t.TempDir(), nil, netns)
	listener, err := net.Listen("unix", place.Socket("fra1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	journal := process.NewJournal()
	p := &prober{gate: newGate(tuntest.NewChannelTUN().TUN()), sources: sources{link: 1}, say: journal.Say}
	udp := &bind{}
	dev := device.NewDevice(p, udp, logger(journal))
	t.Cleanup(dev.Close)
	go newServer("test", dev, udp, p, journal).Serve(listener)
	says = make(chan string, 100)
	if c, err = place.Adopt("fra1", func(line string) { says <- line }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, says
}

func TestRequestsAreAnsweredWithAnErrorNumber(t *testing.T) {
	c, says := served(t)
	secret, peer := strings.Repeat("41", 32), strings.Repeat("ab", 32)
	for _, step := range []struct {
		do, value, body string
		says            string
		err             unix.Errno
	}{
		{"hello", "1", "", fmt.Sprintf("probes=1\nversion=%d\nprogram=test\n", version), 0},
		{"set", "1", "private_key=" + secret + "\n", "", 0},
		{"get", "1", "", "private_key=" + "40" + secret[2:62] + "41\n", 0},
		{"set", "1", "private_key " + secret + "\n", "", unix.EPROTO},
		{"set", "1", "public_key=" + peer + "\nendpoint=" + secret + "\n", "", unix.EINVAL},
		{"greet", "1", "public_key=" + peer + "\n", "", 0}, // its endpoint is not known
		{"poke", "1", "public_key=" + secret[1:] + "\n", "", unix.EINVAL},
		{"greet", "1", "nonsense\n", "", unix.EINVAL},
		{"local", "nowhere", "", "", unix.EINVAL},
		{"local", "2001:db8::1", "", "", 0},
		{"hello", "1", "", "local=2001:db8::1\nprobes=1\nversion=", 0},
		{"local", "", "", "", 0},
		{"hello", "1", "", "probes=1\nversion=", 0},
		{"probe", "1", "", "", unix.EINVAL},
		{"probe", strings.Repeat("ab", 8), "192.0.2.1\n", "", unix.EINVAL},
		{"probe", strings.Repeat("ab", 8), "fe80::1%1=1\n", "", unix.EINVAL},
		{"probe", strings.Repeat("ab", 8), "", "", 0},
		{"hold", "0", "", "", unix.EINVAL},
		{"hold", "3600000", "", "", unix.EINVAL},
		{"hold", "1000", "", "", 0},
		{"release", "1", "", "", 0},
		{"sudo", "1", "", "", unix.EOPNOTSUPP},
	} {
		said, err := c.Ask(process.Request{Do: step.do, Value: step.value, Body: step.body})
		if step.err == 0 && err != nil || step.err != 0 && !errors.Is(err, step.err) || !strings.HasPrefix(said, step.says) {
			t.Errorf("%s=%s: %q, %v", step.do, step.value, said, err)
		}
		if err != nil && strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("an error quotes the request: %v", err)
		}
	}
	select { // what is of the same kind is not told again soon
	case line := <-says:
		if strings.Contains(line, secret[:8]) || strings.Contains(line, "private_key") {
			t.Errorf("a refusal quotes the request: %q", line)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the refusals are not told of")
	}
}

func TestWhatADeviceSaysOfItsPeersIsRead(t *testing.T) {
	got := contacts("private_key=00\nlisten_port=1\nendpoint=of nobody\npublic_key=aa\nendpoint=192.0.2.1:1\nlast_handshake_time_sec=5\nfuture=1\n" +
		"public_key=bb\nlast_handshake_time_sec=0\n")
	want := map[string]contact{"aa": {"192.0.2.1:1", time.Unix(5, 0)}, "bb": {"", time.Unix(0, 0)}}
	if len(got) != len(want) || got["aa"] != want["aa"] || got["bb"] != want["bb"] {
		t.Errorf("%+v", got)
	}
}
