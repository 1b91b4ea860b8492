//go:build vmguest

package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/keys"
	"sluice/crypto/path"
	"sluice/crypto/wireguard"
)

// stream is a hundred datagrams a second through the tunnel, whose answers nobody waits for.
type stream struct {
	c    net.Conn
	stop chan struct{}
	wait sync.WaitGroup

	mu       sync.Mutex
	sent     uint64
	answered map[uint64]bool
}

func (n *node) startStream(t *testing.T) *stream {
	t.Helper()
	s := &stream{c: n.dial(t, "10.20.0.1"), stop: make(chan struct{}), answered: map[uint64]bool{}}
	roomy(t, s.c.(*net.UDPConn))
	s.wait.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			s.mu.Lock()
			s.sent++
			number := s.sent
			s.mu.Unlock()
			s.c.Write(binary.BigEndian.AppendUint64(nil, number)) // a refusal is a loss, and counted as one
		}
	})
	go func() {
		buf := make([]byte, 100)
		for {
			n, err := s.c.Read(buf)
			if err != nil && strings.Contains(err.Error(), "closed") {
				return
			}
			if n == 8 {
				s.mu.Lock()
				s.answered[binary.BigEndian.Uint64(buf)] = true
				s.mu.Unlock()
			}
		}
	}()
	return s
}

// roomy gives a socket room for what comes at once after it was held: what it has no room for, no tunnel has lost.
func roomy(t *testing.T, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		ctlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
		err = errors.Join(err, ctlErr)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *stream) goesOn(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.answered)
	}
	for base, deadline := count(), time.Now().Add(patience); count() < base+n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d datagrams are answered", count()-base, n)
		}
	}
}

// lostNothing ends the stream.
func (s *stream) lostNothing(t *testing.T) {
	t.Helper()
	close(s.stop)
	s.wait.Wait()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		lost, of := int(s.sent)-len(s.answered), s.sent
		s.mu.Unlock()
		if lost == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d of %d datagrams were lost", lost, of)
			break
		}
	}
	s.c.Close()
}

func TestThePresharedKeyOfAKernelTunnelIsReplacedWithoutALostPacket(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	s.up(t)
	traffic := s.a.startStream(t)
	traffic.goesOn(t, 50)
	before := s.a.status(t)[0].Peers[0].LastHandshake
	psk := filepath.Join(t.TempDir(), "psk")
	if err := keys.GeneratePSK(psk); err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		n    *node
		want wireguard.State
	}{{s.a, s.wantA}, {s.b, s.wantB}} {
		end.want.Tunnels[0].Peers = slices.Clone(end.want.Tunnels[0].Peers)
		end.want.Tunnels[0].Peers[0].PresharedKeyFile = psk
		if ops := end.n.converge(t, end.want); len(ops) != 1 {
			t.Errorf("%v", ops)
		}
		traffic.goesOn(t, 50) // the session lives through
	}
	traffic.lostNothing(t)
	if now := s.a.status(t)[0].Peers[0].LastHandshake; !now.Equal(before) {
		t.Error("the session was begun anew")
	}
}

// moved is b with the next key of a beside the present one, the prefixes at one of the two.
func (s *site) moved(public string, toNext bool) wireguard.State {
	w := s.wantB.Tunnels[0]
	present := w.Peers[0]
	next := present
	next.PublicKey = public
	if toNext {
		present.AllowedIPs = nil
	} else {
		next.AllowedIPs = nil
	}
	w.Peers = []wireguard.Peer{present, next}
	slices.SortFunc(w.Peers, func(a, b wireguard.Peer) int { return strings.Compare(a.PublicKey, b.PublicKey) })
	return wireguard.State{Tunnels: []wireguard.Tunnel{w}}
}

// follow moves the prefixes when a handshake by the next key is seen, as b's daemon would.
func (s *site) follow(t *testing.T, public string) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			list, err := s.b.driver.Status(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			for _, p := range list[0].Peers {
				if p.PublicKey == public && !p.LastHandshake.IsZero() {
					if err := s.b.tryConverge(t, s.moved(public, true)); err != nil {
						t.Error(err)
					}
					return
				}
			}
		}
	}()
	return done
}

func TestTheKeyOfAKernelTunnelIsRotatedTwice(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	s.up(t)
	count := s.a.startStream(t)
	file := s.wantA.Tunnels[0].PrivateKeyFile
	for range 2 {
		next := file + ".next"
		public, err := keys.Generate(next)
		if err != nil {
			t.Fatal(err)
		}
		s.b.converge(t, s.moved(public, false))
		count.goesOn(t, 20)
		followed := s.follow(t, public)
		began := time.Now()
		if err := s.a.driver.Rotate(context.Background(), "fra1", next); err != nil {
			t.Fatal(err)
		}
		t.Logf("rotated in %s", time.Since(began))
		<-followed
		count.goesOn(t, 50)
		s.wantA.Tunnels[0].PublicKey = public
		if ops := s.a.converge(t, s.wantA); len(ops) != 0 {
			t.Errorf("compiled again, the tunnel is to %v", ops)
		}
		s.wantB.Tunnels[0].Peers[0].PublicKey = public
		s.b.converge(t, s.wantB)
	}
	count.goesOn(t, 20)
	count.lostNothing(t)
}

func TestAKeyThatThePeerOfAKernelTunnelDoesNotKnowGoesBack(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	s.up(t)
	count := s.a.startStream(t)
	count.goesOn(t, 20)
	next := s.wantA.Tunnels[0].PrivateKeyFile + ".next"
	if _, err := keys.Generate(next); err != nil {
		t.Fatal(err)
	}
	err := s.a.driver.Rotate(context.Background(), "fra1", next)
	if err == nil || !strings.Contains(err.Error(), wireguard.ErrNotTaken.Error()) || !strings.Contains(err.Error(), ": b;") {
		t.Errorf("error %v", err)
	}
	count.goesOn(t, 50)
	count.lostNothing(t)
	if ops := s.a.converge(t, s.wantA); len(ops) != 0 {
		t.Errorf("the tunnel is to %v", ops)
	}
}

func TestWhatADeadDaemonHeldIsReleasedByTheNext(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	s.up(t)
	link, err := s.a.nl.LinkByName("fra1")
	if err != nil {
		t.Fatal(err)
	}
	// One that is new holds, as one that a daemon has told to.
	plug := &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: 0x1870 << 16, Parent: netlink.HANDLE_ROOT}, QdiscType: "plug"}
	if err := s.a.nl.QdiscDel(plug); err != nil {
		t.Fatal(err)
	}
	if err := s.a.nl.QdiscAdd(plug); err != nil {
		t.Fatal(err)
	}
	count := s.a.startStream(t)
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		count.mu.Lock()
		if n := len(count.answered); n > 0 {
			t.Fatalf("%d datagrams are answered though they are held", n)
		}
		count.mu.Unlock()
	}
	s.a.restart(t)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.a.driver.Run(over); err != nil { // a degraded start observes nothing, but follows the underlay
		t.Fatal(err)
	}
	count.goesOn(t, 50)
	count.lostNothing(t)
}

func TestADaemonThatStopsInARotationLeavesNothingHeldInTheKernel(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	s.up(t)
	count := s.a.startStream(t)
	count.goesOn(t, 20)
	next := s.wantA.Tunnels[0].PrivateKeyFile + ".next"
	public, err := keys.Generate(next)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.a.driver.Rotate(context.Background(), "fra1", next) }()
	for deadline := time.Now().Add(patience); s.a.status(t)[0].PublicKey != public; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the device does not get its next key")
		}
	}
	s.a.driver.Stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	count.goesOn(t, 50)
	count.lostNothing(t)
	s.a.restart(t)
	if got := s.a.observe(t).Tunnels[0].PublicKey; got != s.wantA.Tunnels[0].PublicKey {
		t.Errorf("the device has the key of %s, want the old one", got)
	}
}

// By itself the kernel tries again 5 s after the first try, so one answer that comes sooner is proof: a busy machine is given three tries.
func TestAKernelTunnelGreetsAtOnceWhenTheUnderlayComes(t *testing.T) {
	var took []time.Duration
	for i := range 3 {
		t.Run(fmt.Sprint("try ", i+1), func(t *testing.T) { took = append(took, underlayComes(t)) })
		if t.Failed() || took[i] < 5*time.Second {
			return
		}
	}
	t.Errorf("the first answer came %v after the first try; by itself the kernel takes 5 s", took)
}

// underlayComes tells how long after the first try, which finds no route, the first answer comes.
func underlayComes(t *testing.T) time.Duration {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	wire, err := s.a.nl.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.a.nl.LinkSetDown(wire); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.a.driver.Run(ctx) }()
	s.b.converge(t, s.wantB)
	began := time.Now()
	s.a.converge(t, s.wantA)
	count := s.a.startStream(t)
	time.Sleep(100 * time.Millisecond)
	if err := s.a.nl.LinkSetUp(wire); err != nil {
		t.Fatal(err)
	}
	count.goesOn(t, 1)
	took := time.Since(began)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	close(count.stop)
	count.wait.Wait()
	count.c.Close()
	return took
}

func TestAThousandPeersInTheKernel(t *testing.T) {
	s := newSite(t, wireguard.Kernel, wireguard.Kernel)
	want := wireguard.State{Tunnels: slices.Clone(s.wantA.Tunnels)}
	w := &want.Tunnels[0]
	w.Peers, w.Routes = nil, nil
	for i := range 1000 {
		secret, err := wgtypes.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 20 + byte(i>>8), byte(i), 0}), 24)
		w.Peers = append(w.Peers, wireguard.Peer{
			Name: fmt.Sprint("peer-", i), PublicKey: secret.PublicKey().String(), AllowedIPs: []netip.Prefix{prefix},
		})
		w.Routes = append(w.Routes, path.Route{Prefix: prefix, Metric: 100})
	}
	slices.SortFunc(w.Peers, func(a, b wireguard.Peer) int { return strings.Compare(a.PublicKey, b.PublicKey) })
	began := time.Now()
	s.a.converge(t, want)
	t.Logf("apply: %s", time.Since(began))
	began = time.Now()
	w.Peers[500].Keepalive = 10 * time.Second
	if ops := s.a.converge(t, want); len(ops) != 1 {
		t.Errorf("one change is %d ops", len(ops))
	}
	t.Logf("one change: %s", time.Since(began))
	began = time.Now()
	for range 10 {
		if got := s.a.status(t); len(got[0].Peers) != 1000 {
			t.Fatalf("%d peers", len(got[0].Peers))
		}
	}
	t.Logf("status: %s", time.Since(began)/10)
	if ops := s.a.converge(t, want); len(ops) != 0 {
		t.Errorf("a second apply does %v", ops)
	}
	if _, err := os.Stat(s.a.dir + "/run"); err == nil {
		t.Error("a kernel tunnel leaves files")
	}
}
