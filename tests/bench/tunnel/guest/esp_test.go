//go:build vmguest

package guest

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"sluice/crypto/ipsec"
	"sluice/crypto/keys"
	"sluice/tests/bench/tunnel/trial"
)

// cipher sets one in a state of ESP.
type cipher func(s *netlink.XfrmState, key byte)

// aead is a key of 32 bytes and a salt of 4, an ICV of 16, and ESN with a window of 1024 as Sluice has them.
func aead(name string) cipher {
	return func(s *netlink.XfrmState, key byte) {
		s.Aead = &netlink.XfrmStateAlgo{Name: name, Key: bytes.Repeat([]byte{key}, 36), ICVLen: 128}
		s.ESN, s.ReplayWindow = true, 1024
	}
}

var chaCha = aead("rfc7539esp(chacha20,poly1305)")

// null encrypts and authenticates nothing: what is left is ESP itself.
func null(s *netlink.XfrmState, _ byte) {
	s.Crypt = &netlink.XfrmStateAlgo{Name: "ecb(cipher_null)"}
	s.ReplayWindow = 32
}

// ipsecByDriver gives each path a tunnel by Sluice's own driver, with static keying: AES-GCM, ESN, a window of 1024. Its keeper
// runs until both ends have heard each other, and not in the middle of a measurement.
func ipsecByDriver(t *testing.T, s *trial.Site) {
	secret := filepath.Join(t.TempDir(), "master")
	must(t, keys.GeneratePSK(secret))
	ctx, stop := context.WithCancel(t.Context())
	var keepers sync.WaitGroup
	for _, e := range s.Ends() {
		var driver *ipsec.Driver
		must(t, e.Box.Do(func() (err error) {
			driver, err = ipsec.New(slog.New(slog.DiscardHandler), ipsec.Options{StateDir: t.TempDir()})
			return err
		}))
		t.Cleanup(driver.Stop)
		var want ipsec.State
		for i := range s.Paths {
			want.Tunnels = append(want.Tunnels, ipsec.Tunnel{
				Name: trial.Tunnel(i), Local: netip.AddrPortFrom(e.Outer(i), 0), MTU: s.Wire.MTU - s.Overhead, ID: e.Outer(i).String(),
				Keying: ipsec.Static, Encapsulation: ipsec.None, ReplayWindow: 1024,
				Peers: []ipsec.Peer{{Name: "other", ID: e.Other().Outer(i).String(), Endpoint: netip.AddrPortFrom(e.Other().Outer(i), 0), SecretFile: secret,
					Prefixes: []netip.Prefix{e.Other().Network(i)}}},
			})
		}
		must(t, e.Box.Do(func() error {
			for _, op := range driver.Diff(ipsec.State{}, want) {
				if err := driver.Apply(ctx, op); err != nil {
					return err
				}
			}
			return nil
		}))
		for i := range s.Paths {
			must(t, s.Through(e, i))
		}
		keepers.Go(func() {
			if err := e.Box.Do(func() error { return driver.Run(ctx) }); err != nil {
				t.Error(err)
			}
		})
	}
	err := (&trial.Lane{Site: s, Carries: trial.ESP}).Check(ctx)
	stop()
	keepers.Wait()
	must(t, err)
}

// esp gives each path a tunnel of static states over an xfrm interface of its own.
func esp(c cipher) func(*testing.T, *trial.Site) {
	return func(t *testing.T, s *trial.Site) {
		for i := range s.Paths {
			for _, e := range s.Ends() {
				must(t, e.Box.Do(func() error { return espEnd(e, i, c) }))
				must(t, s.Through(e, i))
			}
		}
	}
}

// espEnd makes one end: the interface, a state for each direction, and policies that take everything on the interface.
func espEnd(e *trial.End, path int, c cipher) error {
	id := path + 1
	attrs := netlink.NewLinkAttrs()
	attrs.Name = trial.Tunnel(path)
	if err := netlink.LinkAdd(&netlink.Xfrmi{LinkAttrs: attrs, Ifid: uint32(id)}); err != nil {
		return err
	}
	own, other := e.Outer(path), e.Other().Outer(path)
	out := netlink.XfrmState{Src: own.AsSlice(), Dst: other.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Ifid: id, Reqid: id}
	in := out
	in.Src, in.Dst = out.Dst, out.Src
	for _, s := range []*netlink.XfrmState{&out, &in} {
		to := s.Dst[3] // tells the directions of a path apart
		s.Spi = 0x1000 + 4*path + int(to)
		c(s, byte(s.Spi))
		if err := netlink.XfrmStateAdd(s); err != nil {
			return err
		}
	}
	all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	for _, p := range []struct {
		dir netlink.Dir
		of  netlink.XfrmState
	}{{netlink.XFRM_DIR_OUT, out}, {netlink.XFRM_DIR_IN, in}, {netlink.XFRM_DIR_FWD, in}} {
		err := netlink.XfrmPolicyAdd(&netlink.XfrmPolicy{Src: all, Dst: all, Dir: p.dir, Ifid: id, Tmpls: []netlink.XfrmPolicyTmpl{{
			Src: p.of.Src, Dst: p.of.Dst, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Reqid: id,
		}}})
		if err != nil {
			return err
		}
	}
	return nil
}
