package netns

import (
	"bytes"
	"context"
	bin "encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// tunnelSite is a gateway and a peer with a tunnel between them, and a workload that speaks through it without end.
type tunnelSite struct {
	*site
	capture *lab.Capture // of the underlay
	secret  string       // in every datagram

	conn net.Conn
	stop chan struct{}
	wait sync.WaitGroup

	mu       sync.Mutex
	sent     uint64
	answered map[uint64]bool
}

// tunnelEcho is in the peer, and tunnelPace a hundred datagrams a second.
const (
	tunnelEcho = 5201
	tunnelPace = 10 * time.Millisecond
)

// newTunnelSite starts both daemons with policies that let everything pass, and returns when datagrams come back.
func newTunnelSite(t *testing.T) *tunnelSite {
	t.Helper()
	s := &tunnelSite{site: newSite(t), secret: "secret-of-the-tunnel-", stop: make(chan struct{}), answered: map[uint64]bool{}}
	open := func(file string) string { return strings.ReplaceAll(file, "default: drop", "default: accept") }
	s.write(open(s.labFile()))
	peer, err := os.ReadFile(s.Peer.File)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Peer.File, []byte(open(string(peer))), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.startPeer()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := s.Peer.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	s.echo()
	if s.capture, err = s.ToR.StartCapture("gateway", s.secret, "in the clear"); err != nil {
		t.Fatal(err)
	}
	if s.conn, err = s.Workload(1).Dial(ctx, "udp", netip.AddrPortFrom(lab.Inner4, tunnelEcho).String()); err != nil {
		t.Fatal(err)
	}
	s.wait.Go(s.listen)
	eventually(t, func() error { // not counted: the first ones find no neighbor, or no session
		s.send(0)
		if s.back() == 0 {
			return errors.New("nothing comes back through the tunnel")
		}
		return nil
	})
	s.wait.Go(s.speak)
	t.Cleanup(func() { _ = s.conn.Close() })
	return s
}

// echo sends back what comes to the peer's inner address.
func (s *tunnelSite) echo() {
	s.t.Helper()
	var conn net.PacketConn
	err := s.Peer.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", netip.AddrPortFrom(lab.Inner4, tunnelEcho).String())
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1000)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buf[:n], from)
		}
	}()
}

func (s *tunnelSite) send(n uint64) {
	_, _ = s.conn.Write(bin.BigEndian.AppendUint64([]byte(s.secret), n)) // a refusal is a loss, and counted as one
}

func (s *tunnelSite) speak() {
	tick := time.NewTicker(tunnelPace)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		s.sent++
		n := s.sent
		s.mu.Unlock()
		s.send(n)
	}
}

func (s *tunnelSite) listen() {
	buf := make([]byte, 1000)
	for {
		n, err := s.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n == len(s.secret)+8 {
			s.mu.Lock()
			s.answered[bin.BigEndian.Uint64(buf[n-8:n])] = true
			s.mu.Unlock()
		}
	}
}

func (s *tunnelSite) back() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.answered)
}

// missing are the datagrams that have no answer so far.
func (s *tunnelSite) missing() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.sent) - len(s.answered)
}

// goesOn waits for n more answers.
func (s *tunnelSite) goesOn(n int) {
	s.t.Helper()
	base := s.back()
	eventually(s.t, func() error {
		if now := s.back() - base; now < n {
			return fmt.Errorf("%d of %d datagrams are answered", now, n)
		}
		return nil
	})
}

// verdict ends the traffic, tells how much of it was lost, and fails if any of it was seen in the clear.
func (s *tunnelSite) verdict() (lost, of int) {
	s.t.Helper()
	close(s.stop)
	deadline := time.Now().Add(10 * time.Second)
	for {
		s.mu.Lock()
		delete(s.answered, 0)
		lost, of = int(s.sent)-len(s.answered), int(s.sent)
		s.mu.Unlock()
		if lost == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(tunnelPace)
	}
	_ = s.conn.Close()
	s.wait.Wait()
	// A capture that sees nothing proves nothing.
	s.must(s.ToR, "ping -c1 -W5 -p "+fmt.Sprintf("%x", "in the clear")+" 198.18.0.2")
	seen, err := s.capture.Stop()
	if err != nil {
		s.t.Fatal(err)
	}
	if seen.Missed > 0 || seen.Markers[1] == 0 || seen.Tunnel == 0 {
		s.t.Errorf("the capture is not complete: %+v", seen)
	}
	if seen.Markers[0] > 0 {
		s.t.Errorf("%d frames of the tunnel's traffic are in the clear", seen.Markers[0])
	}
	s.t.Logf("%d of %d datagrams were lost", lost, of)
	return lost, of
}

// processes are the pids of a node's userspace tunnels: those whose command line names its state directory.
func processes(t *testing.T, n *lab.Node) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(line, []byte("\x00tunneld\x00")) || !bytes.Contains(line, []byte("\x00"+n.StateDir+"/")) {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// process is the one of the gateway's only tunnel.
func (s *tunnelSite) process() int {
	s.t.Helper()
	pids := processes(s.t, s.Gateway)
	if len(pids) != 1 {
		s.t.Fatalf("processes of tunnels: %v, want one", pids)
	}
	return pids[0]
}

func (s *tunnelSite) handshake() time.Time {
	s.t.Helper()
	return show[api.Tunnels](s.site, "tunnels").Tunnels[0].Peers[0].LastHandshake
}

// settled is the last handshake of a start. Where both ends begin at once one of them has no answer, and asks again after Rekey-Timeout, 5 s, and
// up to 333 ms (WireGuard's paper, section 6.1), though there is a session. On a busy machine that takes longer.
func (s *tunnelSite) settled() time.Time {
	s.t.Helper()
	var last time.Time
	eventually(s.t, func() error {
		last = s.handshake()
		if age := time.Since(last); age < 10*time.Second {
			return fmt.Errorf("the last handshake is %v old", age)
		}
		return nil
	})
	return last
}

func TestATunnelCarriesOnWhileTheDaemonIsAway(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(*site)
		next bool // another version starts
	}{
		"stopped": {end: (*site).terminate}, "killed": {end: (*site).kill}, "upgraded": {end: (*site).terminate, next: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next := binary()
			if c.next {
				next = buildNext(t)
			}
			s := newTunnelSite(t)
			pid, handshake := s.process(), s.settled()
			s.goesOn(100)
			c.end(s.site)
			s.goesOn(200)
			if err := s.Gateway.StartDaemonOf(next); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := s.Gateway.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			s.goesOn(100)
			if now := s.handshake(); !now.Equal(handshake) {
				t.Errorf("there was another handshake: %s, %s before", now, handshake)
			}
			if lost, _ := s.verdict(); lost != 0 {
				t.Errorf("%d datagrams were lost", lost)
			}
			if now := s.process(); now != pid {
				t.Errorf("process %d runs the tunnel, %d did", now, pid)
			}
		})
	}
}

func TestTheDaemonReplacesAKilledTunnelProcess(t *testing.T) {
	t.Parallel()
	s := newTunnelSite(t)
	pid := s.process()
	s.goesOn(100)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if pids := processes(t, s.Gateway); len(pids) != 1 || pids[0] == pid {
			return fmt.Errorf("processes %v", pids)
		}
		return nil
	})
	before := s.missing() // what its start took is not the handshake's
	s.goesOn(100)
	lost, _ := s.verdict()
	t.Logf("%d of them before there was a process", before)
	// After REKEY_TIMEOUT, 5 s, the last 128 datagrams that waited are sent.
	if time.Duration(lost-before)*tunnelPace >= 3500*time.Millisecond {
		t.Errorf("%d datagrams were lost, %d of them before there was a process: the first handshake was in vain", lost, before)
	}
	if time.Duration(lost)*tunnelPace >= 15*time.Second {
		t.Errorf("%d datagrams were lost: the process was not replaced at once", lost)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
		t.Errorf("process %d is not reaped", pid)
	}
}

func TestATunnelWhoseInterfaceIsDeletedByHandIsRepaired(t *testing.T) {
	t.Parallel()
	s := newTunnelSite(t)
	pid := s.process()
	s.goesOn(100)
	s.must(s.Gateway.Namespace, "ip link del fra1")
	eventually(t, func() error {
		if pids := processes(t, s.Gateway); len(pids) != 1 || pids[0] == pid {
			return fmt.Errorf("processes %v", pids)
		}
		return nil
	})
	s.goesOn(100)
	s.verdict()
}

func TestDownEndsTunnelProcessesAndLeavesNoFile(t *testing.T) {
	t.Parallel()
	s := newTunnelSite(t)
	peers := processes(t, s.Peer)
	s.verdict()
	if r := s.sluice("down"); r.code != 0 {
		t.Fatalf("down: %d %s%s", r.code, r.out, r.err)
	}
	s.ends(0)
	if pids := processes(t, s.Gateway); len(pids) != 0 {
		t.Errorf("processes %v are left", pids)
	}
	if left, err := os.ReadDir(filepath.Join(s.Gateway.StateDir, "run")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files are left: %v, %v", left, err)
	}
	if now := processes(t, s.Peer); len(peers) != 1 || len(now) != 1 || now[0] != peers[0] {
		t.Errorf("the peer's process: %v, %v before", now, peers)
	}
}
