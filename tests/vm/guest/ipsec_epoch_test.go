//go:build vmguest

package guest

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/crypto/ipsec"
)

// follows waits until each end receives in the epoch that the other sends in.
func (s *espSite) follows(t *testing.T) {
	t.Helper()
	eventually(t, "both ends have heard the other's epoch", func() bool {
		a, b := s.a.peer(t), s.b.peer(t)
		return a.Epoch == b.PeerEpoch && b.Epoch == a.PeerEpoch
	})
}

func TestESPEpochsRotateUnderTrafficWithoutALostPacket(t *testing.T) {
	for name, o := range map[string]outer{"IPv4": {false, ipsec.None}, "UDP over IPv6": {true, ipsec.UDP}} {
		t.Run(name, func(t *testing.T) {
			s := newESPSite(t, o)
			s.up(t)
			first := s.a.peer(t).Epoch
			count := s.a.startEchoes(t)
			for range 6 {
				s.a.rotate(t)
				count.more(t, 3)
				s.b.rotate(t)
				count.more(t, 3)
				s.follows(t)
			}
			count.finish(t, 50)
			if got := s.a.peer(t).Epoch; got != first+6 {
				t.Errorf("epoch %d, began with %d", got, first)
			}
		})
	}
}

// Two changes while the other end is not looking are what a window holds; its keeper is stopped.
func TestESPTwoRotationsBehindAnAbsentKeeperLoseNothing(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	s.follows(t)
	s.b.end()
	s.b.end = nil
	count := s.a.startEchoes(t)
	for range 2 {
		s.a.rotate(t)
		count.more(t, 20)
	}
	count.finish(t, 10)
}

func TestESPEpochsRotateByTime(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.a.want.Tunnels[0].Rekey = 3 * time.Second
	s.up(t)
	first := s.a.peer(t).Epoch
	count := s.a.startEchoes(t)
	for n := uint64(1); n <= 3; n++ {
		eventually(t, "an epoch later", func() bool { return s.a.peer(t).Epoch >= first+n })
	}
	count.finish(t, 10)
}

func TestARestartedDaemonAdoptsESPByDoingNothing(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.UDP})
	s.up(t)
	s.follows(t)
	before := s.a.peer(t)
	count := s.a.startEchoes(t)
	for range 3 {
		s.a.stop()
		s.a.boot(t)
		if ops := s.a.converge(t); len(ops) != 0 {
			t.Errorf("the restarted daemon does %q", ops)
		}
		s.a.keep(t)
		count.more(t, 5)
	}
	count.finish(t, 10)
	after := s.a.peer(t)
	if after.Epoch != before.Epoch || after.SPI != before.SPI || after.Sequence <= before.Sequence || after.Name != "b" {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

// lose takes all that a reboot takes from a node. With its disk, its memory of epochs is gone as well.
func (n *espNode) lose(t *testing.T, disk bool) {
	t.Helper()
	n.stop()
	n.boots++
	n.flush(t, true, true)
	if err := n.nl.LinkDel(n.link(t, "fra1")); err != nil {
		t.Fatal(err)
	}
	if disk {
		if err := os.RemoveAll(filepath.Join(n.dir, "ipsec")); err != nil {
			t.Fatal(err)
		}
	}
	n.boot(t)
}

func TestESPARebootWithinAMinuteIsHeardAtOnce(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	s.follows(t)
	before, unknown := s.b.peer(t).Epoch, s.a.statistic(t, "XfrmInNoStates")
	for i := range 3 {
		s.b.lose(t, false)
		s.b.converge(t)
		s.b.keep(t)
		// One datagram there and back: neither end has to look for the other.
		s.a.answers(t, "10.20.0.1")
		s.follows(t)
		if got := s.b.peer(t).Epoch; got != before+uint64(i)+1 {
			t.Errorf("epoch %d after %d, reboot %d", got, before, i+1)
		}
	}
	if got := s.a.statistic(t, "XfrmInNoStates"); got != unknown {
		t.Errorf("%d packets came with an SPI that nobody stood ready for", got-unknown)
	}
}

// By its clock the node is far ahead of the epochs that its disk knew. The low bits of the new one may be those of one that
// the other end stands ready for: 40 days are a multiple of 256 minutes.
func TestESPANodeThatGoesOnByItsClockIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		later time.Duration
		disk  bool // is lost
	}{
		"it lost its disk":           {40*24*time.Hour + 77*time.Minute, true},
		"with the same SPI":          {40 * 24 * time.Hour, true},
		"it boots after a day":       {24 * time.Hour, false},
		"and after many of the same": {40 * 24 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) { goesOnByItsClock(t, c.later, c.disk) })
	}
}

func goesOnByItsClock(t *testing.T, later time.Duration, disk bool) {
	s := newESPSite(t, outer{true, ipsec.UDP})
	s.up(t)
	s.follows(t)
	before := s.b.peer(t).Epoch
	s.b.lose(t, disk)
	s.b.now = func() time.Time { return time.Now().Add(later) }
	s.b.converge(t)
	s.b.keep(t)
	began := time.Now()
	s.a.answers(t, "10.20.0.1")
	t.Logf("found after %s", time.Since(began))
	s.follows(t)
	if got := s.b.peer(t).Epoch; got < before+uint64(later/time.Minute) {
		t.Errorf("epoch %d, had %d", got, before)
	}
	if clear, _ := s.passed(t); clear != 0 {
		t.Errorf("%d frames in clear", clear)
	}
}

// Neither end knows the other's epoch, no probe helps, and one TCP connection is all that is sent: each end finds the other by its first
// packet while it listens anyhow, since it has been set up, and by the second one later. So the fourth SYN, after 7 s, is never needed.
func TestESPOneConnectionIsEnoughForTwoNodesThatNeverHeardEachOther(t *testing.T) {
	for name, rest := range map[string]bool{"at once": false, "when nobody listens any more": true} {
		t.Run(name, func(t *testing.T) {
			s := newESPSite(t, outer{false, ipsec.None})
			for _, n := range []*espNode{s.b, s.a} {
				n.converge(t)
				n.keep(t)
			}
			var listener net.Listener
			s.b.do(t, func() (err error) {
				listener, err = net.Listen("tcp", "10.20.0.1:8")
				return err
			})
			defer listener.Close()
			s.a.do(t, func() error { // a SYN is sent again after 1, 3, 7 s, as kernels before 6.5 did
				return os.WriteFile("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", []byte("0"), 0)
			})
			if rest {
				s.a.hasPacketSockets(t, 1) // the capture's
				s.b.hasPacketSockets(t, 0)
			}
			began := time.Now()
			var conn net.Conn
			s.a.do(t, func() (err error) {
				conn, err = net.DialTimeout("tcp", "10.20.0.1:8", time.Minute)
				return err
			})
			defer conn.Close()
			if again := segmentsSentAgain(t, conn.(*net.TCPConn)); again > 2 {
				t.Errorf("%d SYNs were sent again", again)
			}
			t.Logf("connected after %s", time.Since(began))
			s.follows(t)
		})
	}
}

// hasPacketSockets waits until a node has so many.
func (n *espNode) hasPacketSockets(t *testing.T, want int) {
	t.Helper()
	for range 3 * patience / time.Second {
		var list []byte
		n.do(t, func() (err error) {
			list, err = os.ReadFile("/proc/thread-self/net/packet")
			return err
		})
		if have := bytes.Count(list, []byte("\n")) - 1; have == want { // a line is the header
			return
		}
		time.Sleep(time.Second)
	}
	t.Fatalf("not %d packet sockets after %s", want, 3*patience)
}

func segmentsSentAgain(t *testing.T, c *net.TCPConn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return info.Total_retrans
}

func TestESPAClockThatWasSetBackMattersOnlyWithoutAFile(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	s.follows(t)
	before := s.b.peer(t).Epoch
	s.b.now = func() time.Time { return time.Unix(0, 0) }
	s.b.lose(t, false)
	s.b.converge(t)
	s.b.keep(t)
	s.a.answers(t, "10.20.0.1")
	if got := s.b.peer(t).Epoch; got != before+1 {
		t.Errorf("epoch %d after %d", got, before)
	}
	s.b.lose(t, true)
	_, err := s.b.tryConverge(t)
	if !errors.Is(err, ipsec.ErrClock) || !strings.Contains(err.Error(), "1970-01-01") {
		t.Errorf("error %v", err)
	}
}

func TestESPATunnelThatComesBackUsesNoEpochTwice(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	used := map[uint64]bool{s.b.peer(t).Epoch: true}
	want := s.b.want
	again := func(what string) {
		t.Helper()
		s.b.want = want
		s.b.converge(t)
		if e := s.b.peer(t).Epoch; used[e] {
			t.Errorf("%s: epoch %d was used before", what, e)
		} else {
			used[e] = true
		}
	}
	s.b.want = ipsec.State{}
	s.b.converge(t)
	again("removed and made again")
	s.b.want = clone(want)
	s.b.want.Tunnels[0].Peers = nil
	s.b.converge(t)
	again("a peer removed and added again")
	s.b.down(t)
	again("after down")
	s.b.want = clone(want)
	s.b.want.Tunnels[0].Name = "ams1"
	s.b.converge(t)
	if e := s.b.peer(t).Epoch; used[e] {
		t.Errorf("renamed: epoch %d was used before", e)
	}
	s.a.answers(t, "10.20.0.1")
}

func TestESPARenamedPeerLosesNothing(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	s.follows(t)
	before := s.a.peer(t)
	count := s.a.startEchoes(t)
	s.a.want = clone(s.a.want)
	s.a.want.Tunnels[0].Peers[0].Name = "other"
	s.a.converge(t)
	count.finish(t, 10)
	after := s.a.peer(t)
	if after.Name != "other" || after.SPI != before.SPI || after.PeerEpoch != before.PeerEpoch {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

func TestESPStatesThatWereDeletedAreMadeAnewInAnotherEpoch(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	s.follows(t)
	before := s.a.peer(t).Epoch
	s.a.flush(t, true, false)
	s.leaksNothing(t, "its states are gone")
	s.a.answers(t, "10.20.0.1")
	if got := s.a.peer(t).Epoch; got != before+1 {
		t.Errorf("epoch %d after %d", got, before)
	}
}

// What is added to the kernel behind our back under a key of ours does not stay.
func TestESPSurplusStatesOfAPeerGo(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	s.follows(t)
	s.a.rotate(t)
	s.a.answers(t, "10.20.0.1")
	s.follows(t)
	eventually(t, "that of the epoch before stays for a moment at the other end", func() bool { return len(s.b.states(t)) == 5 })
	eventually(t, "one state sends and three receive", func() bool { return len(s.a.states(t)) == 4 })
	eventually(t, "the same at the other end", func() bool { return len(s.b.states(t)) == 4 })
}

func (n *espNode) states(t *testing.T) (spis []int) {
	t.Helper()
	n.do(t, func() error {
		list, err := netlink.XfrmStateList(netlink.FAMILY_ALL)
		for _, s := range list {
			spis = append(spis, s.Spi)
		}
		return err
	})
	slices.Sort(spis)
	return spis
}
