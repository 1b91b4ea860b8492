//go:build vmguest

package site

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/api"
)

// charonSettings are a strongswan.conf of the test's own.
const charonSettings = `
charon-systemd {
	load = random nonce aes sha1 sha2 hmac kdf gcm openssl kernel-netlink socket-default vici
	retransmit_timeout = 0.5
	retransmit_tries = 4
	plugins {
		vici { socket = unix://%s }
		openssl { load_legacy = no }
	}
	journal { default = -1 }
	filelog { stderr { default = 0 } }
}
`

// charon is strongSwan's daemon beside one of ours.
type charon struct {
	at     *end
	conf   string
	socket string
	cmd    *exec.Cmd
}

func (s *site) charon(at *end) *charon {
	s.t.Helper()
	dir, err := os.MkdirTemp("", "charon") // a socket's path may have 107 bytes
	if err != nil {
		s.t.Fatal(err)
	}
	c := &charon{at: at, conf: filepath.Join(dir, "strongswan.conf"), socket: filepath.Join(dir, "vici")}
	if err := os.WriteFile(c.conf, fmt.Appendf(nil, charonSettings, c.socket), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.kill)
	return c
}

func (c *charon) start(t *testing.T) {
	t.Helper()
	c.cmd = exec.Command("/usr/sbin/charon-systemd")
	c.cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+c.conf)
	c.cmd.Stderr = os.Stdout
	if err := c.at.Do(c.cmd.Start); err != nil {
		t.Fatal(err)
	}
}

func (c *charon) kill() {
	if c.cmd != nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		c.cmd = nil
	}
}

// ike has an end negotiate its keys, or derive them again.
func (e *end) ike(c *charon, master string, on bool) {
	e.t.Helper()
	changes := []string{"keying: static", "keying: ike, charon: " + c.socket, "master_key_file: " + master, "preshared_key_file: " + master}
	for i := 0; i < len(changes) && !on; i += 2 {
		changes[i], changes[i+1] = changes[i+1], changes[i]
	}
	e.edit(changes...)
	e.apply()
}

func (s *site) charonTakesOverTheKeysAndGivesThemBack() {
	s.cut(udp, true)
	defer s.cut(udp, false)
	s.routeIs("fra2")
	f := s.startStream(s.Workload(1), inner)
	f.more(100)
	f.lost()
	a, b := s.charon(s.gateway), s.charon(s.peer)
	master := filepath.Join(s.Dir, "master")

	// The peer first: between the two applies the ends do not understand each other.
	b.start(s.t)
	a.start(s.t)
	s.peer.ike(b, master, true)
	s.gateway.ike(a, master, true)
	s.t.Logf("up with charon's keys: %s", s.gateway.tunnelsAre(api.PeerUp, "fra2"))
	f.more(100)
	s.t.Logf("lost when charon took over: %v of 100 datagrams a second", f.lost())
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

	// charon dies. Its states stay in the kernel, so nothing is lost, and it is told of.
	a.kill()
	eventually(s.t, func() error {
		if tun, _ := s.gateway.tunnel("fra2"); !strings.Contains(tun.Why, "charon does not answer at "+a.socket) {
			return fmt.Errorf("the tunnel is %+v", tun)
		}
		return nil
	})
	f.sends(100)
	s.t.Logf("lost while charon was dead: %v of 100 datagrams a second", f.lost())
	a.start(s.t)
	eventually(s.t, func() error {
		if tun, _ := s.gateway.tunnel("fra2"); tun.Why != "" {
			return fmt.Errorf("the tunnel is %+v", tun)
		}
		return nil
	})
	s.t.Logf("up after charon came back: %s", s.gateway.tunnelsAre(api.PeerUp, "fra2"))
	f.more(100)
	s.t.Logf("lost until it was up: %v of 100 datagrams a second", f.lost())

	s.peer.ike(b, master, false)
	s.gateway.ike(a, master, false)
	s.gateway.tunnelsAre(api.PeerUp, "fra2")
	f.more(100)
	s.t.Logf("lost when charon gave back: %v of 100 datagrams a second", f.lost())
	if tun, p := s.gateway.tunnel("fra2"); tun.Backend != "static" || p.SA == nil || p.SA.Epoch == 0 {
		s.t.Errorf("the tunnel is %+v, its SA %+v", tun, p.SA)
	}
	s.gateway.nothingToDo()
}
