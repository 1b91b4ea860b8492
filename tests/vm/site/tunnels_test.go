//go:build vmguest

package site

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"sluice/control/api"
)

// A way that is cut shows within 4 s (a probe that was just answered, three that are lost), and each end has to notice by itself.
const failover = 6 * time.Second

func (s *site) trafficTakesESPWhileWireGuardIsCut() {
	s.routeIs("fra1")
	f := s.startStream(s.Workload(1), inner)
	f.more(50)
	f.lost() // what met a tunnel that was not there yet

	s.rotateWireGuard()
	f.more(50)
	f.lostNothing("while WireGuard's key was changed")

	mend := s.cut(udp)
	defer mend()
	s.routeIs("fra2")
	f.more(200)
	f.lostAtMost(failover, "while WireGuard was cut")
	if _, p := s.gateway.tunnel("fra1"); p.State != api.PeerDown || p.Routes != api.RoutesWithdrawn {
		s.t.Errorf("while it is cut, WireGuard's peer is %+v", p)
	}

	before := s.showsESP()
	for _, e := range []*end{s.gateway, s.peer} {
		name := map[*end]string{s.gateway: "fra2", s.peer: "edge2"}[e]
		var r api.Rotated
		if err := json.Unmarshal([]byte(e.sluice("key rotate "+name+" -o json")), &r); err != nil {
			s.t.Fatal(err)
		}
		if len(r.Peers) != 1 || !r.Peers[0].InTouch || r.Peers[0].Epoch != r.Peers[0].OldEpoch+1 {
			s.t.Errorf("rotated: %+v", r)
		}
		f.more(150)
		f.lostNothing("while ESP's keys were changed")
	}
	eventually(s.t, func() error { // what was heard is looked up by and by
		after := s.showsESP()
		if after.Epoch != before.Epoch+1 || after.PeerEpoch != before.PeerEpoch+1 || after.SPIOut == before.SPIOut {
			return fmt.Errorf("after both ends have changed their keys %+v, before %+v", after, before)
		}
		return nil
	})

	mend()
	s.routeIs("fra1")
	f.more(300) // and the peer's way back has changed, too
	f.lostNothing("on the way back")
}

// rotateWireGuard is what the manual says, by the command.
func (s *site) rotateWireGuard() {
	s.t.Helper()
	var staged api.Rotated
	if err := json.Unmarshal([]byte(s.gateway.sluice("key rotate fra1 --stage -o json")), &staged); err != nil {
		s.t.Fatal(err)
	}
	s.peer.edit("["+staged.OldPublicKey+"]", "["+staged.OldPublicKey+", "+staged.PublicKey+"]")
	s.peer.apply()
	if out := s.gateway.sluice("key rotate fra1"); !strings.Contains(out, "taken by 1 peer: fra1") {
		s.t.Errorf("key rotate says:\n%s", out)
	}
	if tun, _ := s.gateway.tunnel("fra1"); tun.PublicKey != staged.PublicKey {
		s.t.Errorf("the tunnel is %+v", tun)
	}
	s.gateway.nothingToDo()
}

// showsESP holds what `show tunnels` says of a tunnel that carries the stream against what must be so.
func (s *site) showsESP() api.TunnelSA {
	s.t.Helper()
	tun, p := s.gateway.tunnel("fra2")
	if tun.Type != "ipsec" || tun.Backend != "static" || !tun.Running || !tun.Strict || !tun.ClampMSS || tun.MTU != 1446 || tun.Underlay != 1500 ||
		tun.ID != "edge" || tun.Encapsulation != "none" || tun.InterfaceID == 0 {
		s.t.Errorf("the tunnel is %+v", tun)
	}
	if p.State != api.PeerUp || p.ID != "fra" || p.Endpoint != "198.18.0.6" || p.Routes != api.RoutesInstalled || time.Since(p.LastHeard) > 10*time.Second ||
		p.RxBytes == 0 || p.TxBytes == 0 || p.Probe == nil || p.SA == nil {
		s.t.Fatalf("the peer is %+v", p)
	}
	sa := *p.SA
	if !sa.ESN || sa.Epoch == 0 || sa.PeerEpoch == 0 || sa.Sequence == 0 || sa.HeadRoom != math.MaxUint64-sa.Sequence || sa.TxPackets == 0 || sa.RxPackets == 0 ||
		len(sa.SPIIn) == 0 || time.Since(sa.Begun) > 10*time.Minute || sa.RekeyIn <= 0 || sa.RekeyIn > (24*time.Hour).Seconds() || sa.Forged != 0 || sa.Replayed != 0 {
		s.t.Errorf("the SA is %+v", sa)
	}
	text := s.gateway.sluice("show tunnels fra2")
	for _, words := range []string{"fra2, ipsec/static, running", "peer fra2: up", "epoch", "1446 of 1500", sa.SPIOut} {
		if !strings.Contains(text, words) {
			s.t.Errorf("show tunnels fra2 lacks %q:\n%s", words, text)
		}
	}
	return sa
}

func (s *site) nothingLeavesWhileTunnelsAreDown() {
	f := s.startStream(s.Workload(1), inner)
	own := s.startStream(s.Gateway.Namespace, inner)
	f.more(50)
	f.lost()

	// Both ways are cut.
	mendUDP, mendESP := s.cut(udp), s.cut(esp)
	defer mendUDP()
	defer mendESP()
	s.gateway.tunnelsAre(api.PeerDown, "fra1", "fra2")
	f.sends(100)
	if out := s.must(s.Gateway.Namespace, "ip route show 10.20.0.0/16"); strings.Contains(out, "dev") || !strings.Contains(out, "blackhole") {
		s.t.Errorf("routes while both tunnels are down:\n%s", out)
	}
	mendESP()
	s.gateway.tunnelsAre(api.PeerUp, "fra2")
	f.more(100)
	mendUDP()
	s.gateway.tunnelsAre(api.PeerUp, "fra1")
	s.peer.tunnelsAre(api.PeerUp, "edge1", "edge2")
	f.more(300)
	f.lost()

	// A daemon that dies and comes back is not noticed.
	_, before := s.gateway.tunnel("fra2")
	s.gateway.kill()
	f.more(100)
	s.gateway.start()
	f.more(100)
	f.lostNothing("over kill -9 and a restart")
	s.gateway.nothingToDo()
	if _, after := s.gateway.tunnel("fra2"); after.SA == nil || after.SA.Epoch != before.SA.Epoch {
		s.t.Errorf("the restarted daemon sends by %+v, before %+v", after.SA, before.SA)
	}

	// Interfaces that somebody deletes are made again.
	for _, name := range []string{"fra1", "fra2"} {
		s.must(s.Gateway.Namespace, "ip link del "+name)
		f.sends(20)
		took := eventually(s.t, func() error {
			_, err := run(s.t, s.Gateway.Namespace, "ip", "link", "show", name)
			return err
		})
		s.t.Logf("%s is repaired after %s", name, took)
		s.gateway.tunnelsAre(api.PeerUp, name)
		f.more(100)
	}
	f.logLost("while interfaces were deleted")

	// And while nobody is there to do it, nothing leaves.
	s.gateway.kill()
	s.must(s.Gateway.Namespace, "ip link del fra1")
	s.must(s.Gateway.Namespace, "ip link del fra2")
	f.sends(200)
	s.gateway.start()
	s.gateway.tunnelsAre(api.PeerUp, "fra1", "fra2")
	f.more(100)
	own.more(100)
	if _, after := s.gateway.tunnel("fra2"); after.SA == nil || after.SA.Epoch != before.SA.Epoch || after.SA.Sequence <= before.SA.Sequence { // states do not go with the interface
		s.t.Errorf("with its interface made anew it sends by %+v, before %+v", after.SA, before.SA)
	}
	s.gateway.nothingToDo()
}

// A reboot takes what is in the kernel and not what is on the disk.
func (s *site) aRebootBeginsANewEpoch() {
	f := s.startStream(s.Workload(1), inner)
	f.more(50)
	defer s.cut(udp)() // so that it is ESP that carries
	s.routeIs("fra2")
	f.more(100)
	_, before := s.gateway.tunnel("fra2")

	s.reboot(s.gateway)
	f.sends(50)
	s.gateway.start()
	s.t.Logf("up after the start: %s", s.gateway.tunnelsAre(api.PeerUp, "fra2"))
	f.more(100)
	f.logLost("over the reboot")
	_, after := s.gateway.tunnel("fra2")
	if after.SA == nil || after.SA.Epoch <= before.SA.Epoch || after.SA.PeerEpoch != before.SA.PeerEpoch || after.SA.SPIOut == before.SA.SPIOut {
		s.t.Errorf("after the reboot %+v, before %+v", after.SA, before.SA)
	}
	s.gateway.nothingToDo()
}

// reboot kills a daemon, takes from its namespace what a reboot takes, and gives the machine a new boot id.
func (s *site) reboot(e *end) {
	s.t.Helper()
	e.kill()
	for _, words := range []string{
		"ip link set eth0 down", "ip link del fra1", "ip link del fra2", "ip xfrm state flush", "ip xfrm policy flush", "ip addr flush dev eth0",
		"ip route flush proto 187", "ip route flush table 187", "ip rule flush", "ip rule add pref 32766 table main", "ip link set eth0 up",
	} {
		if _, err := run(s.t, e.Namespace, strings.Fields(words)...); err != nil && !strings.Contains(words, "table 187") {
			s.t.Fatal(err)
		}
	}
	if err := os.RemoveAll(e.BPFDir); err != nil {
		s.t.Fatal(err)
	}
	s.newBootID()
}
