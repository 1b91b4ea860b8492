//go:build vmguest

package guest

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/crypto/ipsec"
	"sluice/crypto/keys"
)

func TestESPLeaksNothingWhateverIsMissing(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	s.follows(t)
	s.a.stop() // nobody repairs
	s.leaksNothing(t, "the daemon is dead")
	s.a.answers(t, "10.20.0.1")
	s.a.flush(t, true, false)
	drops := s.a.statistic(t, "XfrmOutNoStates")
	s.leaksNothing(t, "its states are gone")
	if got := s.a.statistic(t, "XfrmOutNoStates"); got == drops {
		t.Error("XfrmOutNoStates did not count")
	}
	s.a.flush(t, false, true)
	errors := s.a.link(t, "fra1").Attrs().Statistics.TxErrors
	s.leaksNothing(t, "its policies are gone")
	if got := s.a.link(t, "fra1").Attrs().Statistics.TxErrors; got == errors {
		t.Error("tx_errors of the link did not count what no policy takes")
	}
	if err := s.a.nl.LinkSetDown(s.a.link(t, "fra1")); err != nil {
		t.Fatal(err)
	}
	s.leaksNothing(t, "the link is down")
	if err := s.a.nl.LinkDel(s.a.link(t, "fra1")); err != nil {
		t.Fatal(err)
	}
	s.leaksNothing(t, "the link is gone")

	s.a.boot(t)
	s.a.converge(t)
	s.a.keep(t)
	s.a.answers(t, "10.20.0.1")
	s.a.answers(t, "fd00:20::1")
	if diff := cmp.Diff(s.a.want, s.a.look(t), equal); diff != "" {
		t.Errorf("repaired (-want +have):\n%s", diff)
	}
	if clear, _ := s.passed(t); clear != 0 {
		t.Errorf("%d frames in clear", clear)
	}
	// The proof that these sends would have been seen: without the tunnel they leave by the default route.
	s.a.stop()
	s.a.boot(t)
	s.a.down(t)
	s.a.shout(t)
	if clear, _ := s.passed(t); clear == 0 {
		t.Error("nothing leaves in clear without tunnel and blackholes either")
	}
}

func TestESPEachThingTakenByHandIsRepairedByItsOwnOp(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.UDP})
	s.up(t)
	s.follows(t)
	s.a.end()
	s.a.end = nil
	cases := []struct {
		what string
		take func() error
		want []string
	}{
		{"the link is set down", func() error { return s.a.nl.LinkSetDown(s.a.link(t, "fra1")) }, []string{"start tunnel fra1", "add route"}},
		{"the states are gone", func() error { s.a.flush(t, true, false); return nil }, []string{"update peer b of fra1: repair"}},
		{"the policies are gone", func() error { s.a.flush(t, false, true); return nil }, []string{"update peer b of fra1"}},
		{"the MTU is another", func() error { return s.a.nl.LinkSetMTU(s.a.link(t, "fra1"), 1300) }, []string{"set MTU of fra1 to 1400"}},
		{"the link is gone", func() error { return s.a.nl.LinkDel(s.a.link(t, "fra1")) }, []string{"start tunnel fra1", "add address", "add route"}},
	}
	for _, c := range cases {
		s.a.do(t, c.take)
		said := strings.Join(s.a.converge(t), "\n")
		for _, w := range c.want {
			if !strings.Contains(said, w) {
				t.Errorf("%s: does not do %q:\n%s", c.what, w, said)
			}
		}
		if diff := cmp.Diff(s.a.want, s.a.look(t), equal); diff != "" {
			t.Errorf("%s (-want +have):\n%s", c.what, diff)
		}
		s.a.answers(t, "10.20.0.1")
	}
}

// A daemon for IKE flushes all states and policies that there are when it ends, in this way or a similar one.
func TestESPWhatSomebodyElseFlushedIsPutBackByTheKeeper(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	s.follows(t)
	s.a.flush(t, true, true)
	s.leaksNothing(t, "states and policies were flushed")
	s.a.answers(t, "10.20.0.1")
	s.a.answers(t, "fd00:20::1")
	if ops := s.a.converge(t); len(ops) != 0 {
		t.Errorf("an apply behind it does %q", ops)
	}
}

// others makes, once, states and policies that look much like ours, and tells all that are not ours.
func (n *espNode) others(t *testing.T, make bool) (all []string) {
	t.Helper()
	n.do(t, func() error {
		src, dst := net.ParseIP("198.18.0.1"), net.ParseIP("198.18.0.77")
		for i, ifid := range []int{0, 7, 0x51b00001} {
			if !make {
				break
			}
			state := &netlink.XfrmState{Src: src, Dst: dst, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Spi: 0x1000 + i, Reqid: 0x51c00001, Ifid: ifid,
				ReplayWindow: 32, Aead: &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: slices.Repeat([]byte{1}, 36), ICVLen: 128}}
			policy := &netlink.XfrmPolicy{Dst: &net.IPNet{IP: net.ParseIP("10.77.0.0").To4(), Mask: net.CIDRMask(16, 32)}, Src: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)},
				Dir: netlink.XFRM_DIR_OUT, Ifid: ifid, Priority: 2000, Tmpls: []netlink.XfrmPolicyTmpl{{Src: src, Dst: dst, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Reqid: 0x51c00001}}}
			if err := netlink.XfrmStateAdd(state); err != nil {
				return fmt.Errorf("foreign state: %w", err)
			}
			if err := netlink.XfrmPolicyAdd(policy); err != nil {
				return fmt.Errorf("foreign policy: %w", err)
			}
		}
		states, err := netlink.XfrmStateList(netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, s := range states {
			if s.Ifid&0xfff00000 != 0x51c00000 {
				all = append(all, fmt.Sprint("state ", s.Dst, s.Spi, s.Reqid, s.Ifid))
			}
		}
		policies, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
		for _, p := range policies {
			if p.Ifid&0xfff00000 != 0x51c00000 {
				all = append(all, fmt.Sprint("policy ", p.Dst, p.Dir, p.Ifid))
			}
		}
		return err
	})
	slices.Sort(all)
	return all
}

func TestESPForeignStatesAndPoliciesAreNeverTouched(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	before := s.a.others(t, true)
	if len(before) != 6 {
		t.Fatalf("foreign: %q", before)
	}
	s.up(t)
	s.a.rotate(t)
	s.a.answers(t, "10.20.0.1")
	s.a.stop()
	s.a.boot(t)
	s.a.converge(t)
	s.a.down(t)
	if diff := cmp.Diff(before, s.a.others(t, false)); diff != "" {
		t.Errorf("what is not ours changed (-before +after):\n%s", diff)
	}
	if got := s.a.look(t); len(got.Tunnels) != 0 {
		t.Errorf("left behind: %+v", got)
	}
	if _, err := s.a.nl.LinkByName("fra1"); err == nil {
		t.Error("the link is there")
	}
	if left := s.a.states(t); len(left) != 3 {
		t.Errorf("states left: %x", left)
	}
}

// A state directory that was lost leaves states and policies that no tunnel's file tells of.
func TestESPWhatNoFileTellsOfIsReplacedOrRemoved(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	s.a.stop()
	s.a.dir = t.TempDir()
	s.a.boot(t)
	if got := s.a.look(t).Tunnels; len(got) != 1 || len(got[0].Peers) != 1 || !strings.HasPrefix(got[0].Peers[0].Name, "#") {
		t.Errorf("observed %+v", got)
	}
	s.a.converge(t)
	s.a.keep(t)
	s.a.answers(t, "10.20.0.1")
	if diff := cmp.Diff(s.a.want, s.a.look(t), equal); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
	s.a.stop()
	s.a.dir = t.TempDir()
	s.a.boot(t)
	if err := s.a.nl.LinkDel(s.a.link(t, "fra1")); err != nil {
		t.Fatal(err)
	}
	s.a.down(t)
	if left := s.a.states(t); len(left) != 0 {
		t.Errorf("states left: %x", left)
	}
}

func TestESPReplayedFramesAreRefused(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	var frame []byte
	eventually(t, "the last frame is b's answer", func() bool {
		s.a.answers(t, "10.20.0.1")
		s.rests(t)
		s.wire.mu.Lock()
		defer s.wire.mu.Unlock()
		frame = slices.Clone(s.wire.last)
		return bytes.Equal(frame[6:12], s.b.link(t, "up1").Attrs().HardwareAddr) // its source
	})
	// It is sent again, by b.
	before, counted := s.a.peer(t), s.a.statistic(t, "XfrmInStateSeqError")
	s.b.inject(t, "up1", frame)
	eventually(t, "the replays are counted", func() bool { return s.a.statistic(t, "XfrmInStateSeqError") >= counted+10 })
	if got := s.a.peer(t); got.RxPackets != before.RxPackets || got.Replayed < before.Replayed+10 {
		t.Errorf("before %+v\nafter %+v", before, got)
	}
}

// inject sends a frame ten times.
func (n *espNode) inject(t *testing.T, link string, frame []byte) {
	t.Helper()
	index := n.link(t, link).Attrs().Index
	n.do(t, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range 10 {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestESPWhatIsNotInAPeersPrefixesIsDroppedOnTheWayIn(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	// b claims an address that a does not take from it; b's policies let it out.
	link := s.b.link(t, "lo")
	addr, _ := netlink.ParseAddr("10.99.0.1/32")
	if err := s.b.nl.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	before := s.a.statistic(t, "XfrmInNoPols")
	s.b.do(t, func() error {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP("10.99.0.1")}}
		c, err := d.Dial("udp", "10.200.0.0:9")
		if err != nil {
			return err
		}
		defer c.Close()
		for range 10 {
			if _, err := c.Write(marker); err != nil {
				return err
			}
		}
		return nil
	})
	eventually(t, "XfrmInNoPols counts them", func() bool { return s.a.statistic(t, "XfrmInNoPols") >= before+10 })
}

func TestESPAttributesChangeInPlace(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	index := s.a.link(t, "fra1").Attrs().Index
	for _, n := range []*espNode{s.a, s.b} {
		n.want = clone(n.want)
		w := &n.want.Tunnels[0]
		w.Encapsulation, w.ReplayWindow, w.FirewallMark = ipsec.UDP, 128, 0x1000000
		w.Local = netip.AddrPortFrom(w.Local.Addr(), 4511)
		w.Peers[0].Endpoint = netip.AddrPortFrom(w.Peers[0].Endpoint.Addr(), 4511)
		n.converge(t)
		if diff := cmp.Diff(n.want, n.look(t), equal); diff != "" {
			t.Errorf("(-want +have):\n%s", diff)
		}
	}
	s.a.answers(t, "10.20.0.1")
	for _, n := range []*espNode{s.a, s.b} {
		n.want = clone(n.want)
		w := &n.want.Tunnels[0]
		w.Encapsulation, w.MTU = ipsec.None, 1300
		n.converge(t)
	}
	s.a.answers(t, "10.20.0.1")
	if s.a.link(t, "fra1").Attrs().Index != index {
		t.Error("the link was made anew")
	}
	if locks, _ := filepath.Glob(filepath.Join(s.a.dir, "run", "*")); len(locks) != 0 {
		t.Errorf("ports that nobody needs are held: %q", locks)
	}
}

func TestESPPrefixesOfAPeerComeAndGoWithoutALoss(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	s.follows(t)
	count := s.a.startEchoes(t)
	s.a.want = clone(s.a.want)
	p := &s.a.want.Tunnels[0].Peers[0]
	p.Prefixes = append(slices.Clone(p.Prefixes), list("fd00:21::/64")...)
	slices.SortFunc(p.Prefixes, netip.Prefix.Compare)
	s.a.converge(t)
	count.more(t, 5)
	s.a.want = clone(s.a.want)
	s.a.want.Tunnels[0].Peers[0].Prefixes = list("10.20.0.0/16", "10.200.0.1/32")
	s.a.want.Tunnels[0].Routes = s.a.want.Tunnels[0].Routes[:1]
	s.a.converge(t)
	count.finish(t, 10)
	if diff := cmp.Diff(s.a.want, s.a.look(t), equal); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
}

func TestESPTheFirewallMarkIsOnEncryptedPackets(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	s.up(t)
	rule := netlink.NewRule()
	mask := uint32(0xffffffff)
	rule.Mark, rule.Mask, rule.Type, rule.Priority = 0x51, &mask, unix.FR_ACT_BLACKHOLE, 10
	if err := s.a.nl.RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
	before := s.rests(t)
	s.a.shout(t)
	if _, after := s.passed(t); after != before {
		t.Errorf("%d encrypted packets leave though their mark is routed to nowhere", after-before)
	}
}

func TestESPAWrongSecretPassesNothingAndIsCounted(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.None})
	other := filepath.Join(t.TempDir(), "other")
	if err := keys.GeneratePSK(other); err != nil {
		t.Fatal(err)
	}
	s.b.want = clone(s.b.want)
	right := s.b.want.Tunnels[0].Peers[0].SecretFile
	s.b.want.Tunnels[0].Peers[0].SecretFile = other
	for _, n := range []*espNode{s.a, s.b} {
		n.converge(t)
		n.keep(t)
	}
	for range 3 {
		s.a.shout(t)
	}
	eventually(t, "the counter of unknown SPIs rises", func() bool { s.a.shout(t); return s.b.statistic(t, "XfrmInNoStates") > 0 })
	if p := s.b.peer(t); p.PeerEpoch != 0 || p.RxPackets != 0 {
		t.Errorf("heard %+v", p)
	}
	s.b.want.Tunnels[0].Peers[0].SecretFile = right
	if said := strings.Join(s.b.converge(t), "\n"); !strings.Contains(said, "update peer a of fra1: secret of "+right) {
		t.Errorf("it does %q", said)
	}
	s.a.answers(t, "10.20.0.1")
}

func TestESPErrorsSayWhatAndWhere(t *testing.T) {
	cases := map[string]struct {
		change func(w *ipsec.Tunnel)
		says   []string
	}{
		"the secret is missing":      {func(w *ipsec.Tunnel) { w.Peers[0].SecretFile = "/nonexistent" }, []string{"add peer b to fra1", "/nonexistent", "does not exist"}},
		"both ends have one id":      {func(w *ipsec.Tunnel) { w.ID = "b" }, []string{`identity "b"`, "set id"}},
		"no id":                      {func(w *ipsec.Tunnel) { w.ID = "" }, []string{"ipsec.id"}},
		"families differ":            {func(w *ipsec.Tunnel) { w.Local = netip.MustParseAddrPort("[2001:db8::1]:0") }, []string{"different families"}},
		"no window":                  {func(w *ipsec.Tunnel) { w.ReplayWindow = 5000 }, []string{"replay window 5000", "1 to 4096"}},
		"ike":                        {func(w *ipsec.Tunnel) { w.Keying = ipsec.IKE }, []string{"keying ike"}},
		"the name is too long":       {func(w *ipsec.Tunnel) { w.Name = "frankfurt-am-main" }, []string{"1 to 15 bytes"}},
		"the name is another's link": {func(w *ipsec.Tunnel) { w.Name = "up0" }, []string{"interface up0 exists and is not Sluice's"}},
		"two peers are one": {func(w *ipsec.Tunnel) {
			twin := w.Peers[0]
			twin.Name, twin.Prefixes = "c", nil
			w.Peers = append(w.Peers, twin)
		}, []string{"peer c of fra1 and peer b of fra1", ipsec.ErrAmbiguous.Error(), "different ids"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newESPSite(t, outer{false, ipsec.None})
			s.a.want = clone(s.a.want)
			c.change(&s.a.want.Tunnels[0])
			_, err := s.a.tryConverge(t)
			for _, w := range c.says {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("error %v does not say %q", err, w)
				}
			}
		})
	}
	t.Run("the port is taken", func(t *testing.T) {
		s := newESPSite(t, outer{false, ipsec.UDP})
		s.a.do(t, func() error {
			c, err := net.ListenPacket("udp4", "198.18.0.1:4500")
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		})
		_, err := s.a.tryConverge(t)
		if err == nil || !strings.Contains(err.Error(), ipsec.ErrPortInUse.Error()) || !strings.Contains(err.Error(), "198.18.0.1:4500") {
			t.Errorf("error %v", err)
		}
		if _, err := s.a.nl.LinkByName("fra1"); err == nil {
			t.Error("the link is there")
		}
	})
}
