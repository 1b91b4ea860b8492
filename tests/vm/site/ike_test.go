//go:build vmguest

package site

import (
	"fmt"
	"path/filepath"
	"strings"

	"sluice/control/api"
	"sluice/tests/authority"
	"sluice/tests/charon"
)

// ike has an end negotiate its keys, or derive them again.
func (e *end) ike(c *charon.Daemon, master string, on bool) {
	e.t.Helper()
	changes := []string{"keying: static", "keying: ike, charon: " + c.Socket, "master_key_file: " + master, "preshared_key_file: " + master}
	for i := 0; i < len(changes) && !on; i += 2 {
		changes[i], changes[i+1] = changes[i+1], changes[i]
	}
	e.edit(changes...)
	e.apply()
}

// certified has an end that negotiates its keys prove itself by a certificate, or by the preshared key again.
func (e *end) certified(by authority.Certified, ca, master string, on bool) {
	e.t.Helper()
	auth := fmt.Sprintf("keying: ike, auth: {method: certificate, certificate_file: %s, private_key_file: %s, ca_files: [%s]}", by.Certificate, by.PrivateKey, ca)
	changes := []string{"keying: ike", auth, "        preshared_key_file: " + master + "\n", "        # by its certificate\n"}
	for i := 0; i < len(changes) && !on; i += 2 {
		changes[i], changes[i+1] = changes[i+1], changes[i]
	}
	e.edit(changes...)
	e.apply()
}

// byCertificates has the ends go over to certificates and back to the preshared key, while f is carried.
func (s *site) byCertificates(f *stream, master string) {
	ca := authority.New(s.t, "root", "ec")
	file := ca.File(s.t, s.Dir)
	own, other := ca.Issue(s.t, s.Dir, "edge", "ec"), ca.Issue(s.t, s.Dir, "fra", "ec")
	for _, on := range []bool{true, false} {
		_, before := s.gateway.tunnel("fra2")
		s.peer.certified(other, file, master, on)
		s.gateway.certified(own, file, master, on)
		eventually(s.t, func() error { // those of before carry on until there are others
			if tun, now := s.gateway.tunnel("fra2"); now.SA == nil || now.SA.SPIOut == before.SA.SPIOut || now.State != api.PeerUp || tun.Why != "" || (tun.Certificate != nil) != on {
				return fmt.Errorf("the tunnel is %+v, its SA %+v", tun, now.SA)
			}
			return nil
		})
		f.more(100)
		f.logLost(fmt.Sprintf("when both ends changed what proves them, to certificates: %v", on))
		s.gateway.nothingToDo()
	}
}

func (s *site) charonTakesOverTheKeysAndGivesThemBack() {
	defer s.cut(udp)() // so that it is ESP that carries
	s.routeIs("fra2")
	f := s.startStream(s.Workload(1), inner)
	f.more(100)
	f.lost()
	a, b := charon.New(s.t, charon.Kernel, s.gateway.Do), charon.New(s.t, charon.Kernel, s.peer.Do)
	master := filepath.Join(s.Dir, "master")

	// The peer first: between the two applies the ends do not understand each other.
	b.Start(s.t)
	a.Start(s.t)
	s.peer.ike(b, master, true)
	s.gateway.ike(a, master, true)
	s.t.Logf("up with charon's keys: %s", s.gateway.tunnelsAre(api.PeerUp, "fra2"))
	f.more(100)
	f.logLost("when charon took over")
	tun, p := s.gateway.tunnel("fra2")
	if tun.Backend != "ike" || tun.Why != "" || p.SA == nil || p.SA.Epoch != 0 || !p.SA.ESN || p.SA.RekeyIn <= 0 || p.SA.TxPackets == 0 || p.SA.RxPackets == 0 {
		s.t.Errorf("the tunnel is %+v, its SA %+v", tun, p.SA)
	}
	s.gateway.nothingToDo()

	// A daemon that dies is not noticed; new keys are not either.
	s.gateway.kill()
	f.more(100)
	s.gateway.start()
	s.gateway.nothingToDo()
	if _, again := s.gateway.tunnel("fra2"); again.SA == nil || again.SA.SPIOut != p.SA.SPIOut {
		s.t.Errorf("after a restart the SA is %+v, before %+v", again.SA, p.SA)
	}
	s.gateway.tunnelsAre(api.PeerUp, "fra2")
	f.more(100)
	f.lostNothing("over kill -9 and a restart")
	s.gateway.sluice("key rotate fra2")
	eventually(s.t, func() error {
		if _, now := s.gateway.tunnel("fra2"); now.SA == nil || now.SA.SPIOut == p.SA.SPIOut {
			return fmt.Errorf("the SA is %+v", now.SA)
		}
		return nil
	})
	f.more(100)
	f.lostNothing("while charon negotiated new keys")

	s.byCertificates(f, master)

	// charon dies. Its states stay in the kernel, so nothing is lost, and it is told of.
	a.Kill()
	eventually(s.t, func() error {
		if tun, _ := s.gateway.tunnel("fra2"); !strings.Contains(tun.Why, "charon does not answer at "+a.Socket) {
			return fmt.Errorf("the tunnel is %+v", tun)
		}
		return nil
	})
	f.sends(100)
	f.logLost("while charon was dead")
	a.Start(s.t)
	eventually(s.t, func() error {
		if tun, _ := s.gateway.tunnel("fra2"); tun.Why != "" {
			return fmt.Errorf("the tunnel is %+v", tun)
		}
		return nil
	})
	s.t.Logf("up after charon came back: %s", s.gateway.tunnelsAre(api.PeerUp, "fra2"))
	f.more(100)
	f.logLost("until it was up")

	s.peer.ike(b, master, false)
	s.gateway.ike(a, master, false)
	s.gateway.tunnelsAre(api.PeerUp, "fra2")
	f.more(100)
	f.logLost("when charon gave back")
	if tun, p := s.gateway.tunnel("fra2"); tun.Backend != "static" || p.SA == nil || p.SA.Epoch == 0 {
		s.t.Errorf("the tunnel is %+v, its SA %+v", tun, p.SA)
	}
	s.gateway.nothingToDo()
}
