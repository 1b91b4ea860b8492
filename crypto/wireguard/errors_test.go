package wireguard

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"sluice/crypto/path"
)

// Every error says what is wrong, where and what to do, and a tunnel that could not be made leaves no link behind.
func TestWhatCannotBeDoneIsRefusedAndLeavesNothing(t *testing.T) {
	cases := map[string]struct {
		arrange func(t *testing.T, p *pair, w *Tunnel)
		says    []string
	}{
		"the port is in use": {
			func(t *testing.T, p *pair, w *Tunnel) {
				p.a.Do(t, func() error {
					c, err := net.ListenPacket("udp4", ":51820")
					if err == nil {
						t.Cleanup(func() { c.Close() })
					}
					return err
				})
			},
			[]string{"create tunnel fra1", ErrPortInUse.Error(), "51820", "local.port"},
		},
		"the port is in use over IPv6 only": {
			func(t *testing.T, p *pair, w *Tunnel) {
				p.a.Do(t, func() error {
					c, err := net.ListenPacket("udp6", "[2001:db8::1]:51820")
					if err == nil {
						t.Cleanup(func() { c.Close() })
					}
					return err
				})
			},
			[]string{ErrPortInUse.Error(), "51820"},
		},
		"the key file is missing": {
			func(t *testing.T, p *pair, w *Tunnel) { w.PrivateKeyFile = "/nonexistent/fra1.key" },
			[]string{"/nonexistent/fra1.key", "does not exist", "sluice key gen"},
		},
		"the key file is open to others": {
			func(t *testing.T, p *pair, w *Tunnel) { os.Chmod(w.PrivateKeyFile, 0o644) },
			[]string{"chmod 600"},
		},
		"the key file has changed since": {
			func(t *testing.T, p *pair, w *Tunnel) { w.PrivateKeyFile = newKey(t, t.TempDir(), "x").file },
			[]string{"apply again"},
		},
		"a peer has the own key": {
			func(t *testing.T, p *pair, w *Tunnel) {
				w.Peers = slices.Clone(w.Peers)
				w.Peers[0].PublicKey = w.PublicKey
			},
			[]string{"peer b", "tunnel fra1 itself"},
		},
		"the name is too long": {
			func(t *testing.T, p *pair, w *Tunnel) { w.Name = "frankfurt-am-main" },
			[]string{"frankfurt-am-main", "1 to 15 bytes"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			w := &p.wantA.Tunnels[0]
			c.arrange(t, p, w)
			p.endA = startEnd(t, p.a)
			wantError(t, p.endA.ask(request{Do: "converge", Want: p.wantA}), c.says...)
			if _, err := p.a.LinkByName(w.Name); err == nil {
				t.Error("the link was left behind")
			}
		})
	}
}

func TestAForeignLinkIsNeitherTakenNorObserved(t *testing.T) {
	for _, alias := range []string{"", "sluice:other"} {
		p := newPair(t)
		p.a.Do(t, func() error {
			return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "fra1"}, Mode: netlink.TUNTAP_MODE_TUN})
		})
		if err := p.a.LinkSetAlias(p.a.link(t, "fra1"), alias); err != nil {
			t.Fatal(err)
		}
		p.endA = startEnd(t, p.a)
		wantError(t, p.endA.ask(request{Do: "converge", Want: p.wantA}),
			"interface fra1 exists and is not Sluice's: rename the tunnel or remove it")
		p.endA.must(request{Do: "down"})
		p.a.link(t, "fra1")
		if s := p.endA.observe(); len(s.Tunnels) != 0 {
			t.Errorf("observed %+v", s)
		}
	}
}

func TestAForeignRouteIsNotReplaced(t *testing.T) {
	p := newPair(t)
	dst := path.IPNet(list("10.20.0.0/16")[0])
	route := &netlink.Route{Dst: &dst, Gw: net.ParseIP("198.18.0.2"), Priority: 100, Protocol: 4}
	if err := p.a.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	p.endA = startEnd(t, p.a)
	wantError(t, p.endA.ask(request{Do: "converge", Want: p.wantA}), "route 10.20.0.0/16 metric 100", path.ErrForeign.Error(), "another metric")
	p.endA.must(request{Do: "down"})
	if out, err := p.a.run(t, "ip", "route", "show", "10.20.0.0/16"); err != nil || !strings.Contains(out, "via 198.18.0.2") {
		t.Errorf("%v: %q", err, out)
	}
}

func TestTwoProcessesCannotRunOneTunnel(t *testing.T) {
	p := newPair(t)
	p.up(t)
	second := startEndOf(t, p.a, os.Args[0], t.TempDir())
	wantError(t, second.ask(request{Do: "converge", Want: p.wantA}), "fra1", "another process", "tunneld fra1", "a second daemon", p.a.stateDir)
	p.a.answers(t, "10.20.0.1", marker)
}

func TestAPortInUseDoesNotHurtARunningTunnel(t *testing.T) {
	p := newPair(t)
	p.up(t)
	p.a.Do(t, func() error {
		c, err := net.ListenPacket("udp4", ":51999")
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	})
	p.wantA.Tunnels[0].ListenPort = 51999
	wantError(t, p.endA.ask(request{Do: "converge", Want: p.wantA}), "set tunnel fra1: port 51999", ErrPortInUse.Error())
	p.a.answers(t, "10.20.0.1", marker)
	if got := p.endA.observe().Tunnels[0].ListenPort; got != 51820 {
		t.Errorf("it listens on %d", got)
	}
}

func TestBackendAutoIsUserspaceWhereTheKernelHasNoModule(t *testing.T) {
	yes, err := KernelSupported(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := map[bool]Backend{true: Kernel, false: Userspace}[yes]
	p := newPair(t)
	p.wantA.Tunnels[0].Backend = Auto
	p.up(t)
	if got := p.endA.observe().Tunnels[0].Backend; got != want {
		t.Errorf("KernelSupported is %v, and auto chose %s", yes, got)
	}
	if !yes {
		p.endA.must(request{Do: "down"})
		p.wantA.Tunnels[0].Backend = Kernel
		wantError(t, p.endA.ask(request{Do: "converge", Want: p.wantA}), ErrNoModule.Error(), "auto or userspace")
	}
}

func wantError(t *testing.T, a answer, says ...string) {
	t.Helper()
	for _, s := range says {
		if !strings.Contains(a.Error, s) {
			t.Errorf("error %q does not say %q", a.Error, s)
		}
	}
}
