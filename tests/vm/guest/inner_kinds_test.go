//go:build vmguest

package guest

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/xdp/abi"
)

func TestInnerTrafficOfWireGuardIsJudgedByTheTunnel(t *testing.T) {
	s := newInner(t)
	var keys [2]wgtypes.Key
	for i := range keys {
		var err error
		if keys[i], err = wgtypes.GeneratePrivateKey(); err != nil {
			t.Fatal(err)
		}
	}
	everything := []net.IPNet{{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}
	for i, end := range []struct {
		n    *node
		to   string
		mark int
	}{{s.box, "198.18.0.2", abi.MarkUnderlay}, {s.far, "198.18.0.1", 0}} {
		port, keepalive := 51820, time.Duration(0)
		end.n.do(t, func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "tun1"
			if err := end.n.nl.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs}); err != nil {
				return err
			}
			c, err := wgctrl.New()
			if err != nil {
				return err
			}
			defer c.Close()
			return c.ConfigureDevice("tun1", wgtypes.Config{PrivateKey: &keys[i], ListenPort: &port, FirewallMark: &end.mark,
				Peers: []wgtypes.PeerConfig{{PublicKey: keys[1-i].PublicKey(), Endpoint: &net.UDPAddr{IP: net.ParseIP(end.to), Port: port},
					PersistentKeepaliveInterval: &keepalive, AllowedIPs: everything}}})
		})
	}
	s.through(t)
	s.judged(t)
}

// TestInnerTrafficOfESPIsJudgedByTheTunnel: tunnel mode over xfrm interfaces, IPv4 in IPv4 and IPv6 in IPv6. The underlay has Ethernet, and so
// has what comes out of the tunnel.
func TestInnerTrafficOfESPIsJudgedByTheTunnel(t *testing.T) {
	s := newInner(t)
	ends := map[*node][2]string{s.box: {"198.18.0.1", "2001:db8::1"}, s.far: {"198.18.0.2", "2001:db8::2"}}
	for n, mark := range map[*node]uint32{s.box: abi.MarkUnderlay, s.far: 0} {
		other := s.far
		if n == s.far {
			other = s.box
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "tun1"
		if err := n.nl.LinkAdd(&netlink.Xfrmi{LinkAttrs: attrs, Ifid: xfrmID}); err != nil {
			t.Fatal(err)
		}
		if err := secure(n.ns, ends[n], ends[other], mark); err != nil {
			t.Fatal(err)
		}
	}
	s.through(t)
	s.judged(t)
}

const xfrmID = 0x51c00001

// secure adds the states and policies of one end, by family of the endpoints: IPv4, IPv6.
func secure(ns netns.NsHandle, here, there [2]string, mark uint32) error {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_XFRM)
	if err != nil {
		return err
	}
	defer h.Close()
	for i, any := range []string{"0.0.0.0/0", "::/0"} {
		_, all, err := net.ParseCIDR(any)
		if err != nil {
			return err
		}
		for _, dir := range []netlink.Dir{netlink.XFRM_DIR_OUT, netlink.XFRM_DIR_IN, netlink.XFRM_DIR_FWD} {
			from, to := net.ParseIP(here[i]), net.ParseIP(there[i])
			if dir != netlink.XFRM_DIR_OUT {
				from, to = to, from
			}
			tmpl := netlink.XfrmPolicyTmpl{Src: from, Dst: to, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL}
			if err := h.XfrmPolicyAdd(&netlink.XfrmPolicy{Src: all, Dst: all, Dir: dir, Ifid: xfrmID, Tmpls: []netlink.XfrmPolicyTmpl{tmpl}}); err != nil {
				return fmt.Errorf("policy %s %s: %w", dir, any, err)
			}
			if dir == netlink.XFRM_DIR_FWD {
				continue
			}
			state := netlink.XfrmState{Src: from, Dst: to, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Ifid: xfrmID,
				Spi: 0x1000 + int(to[len(to)-1]), ReplayWindow: 32, // by the last byte of the receiver's address
				Aead: &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: make([]byte, 36), ICVLen: 128}}
			if dir == netlink.XFRM_DIR_OUT && mark != 0 {
				state.OutputMark = &netlink.XfrmMark{Value: mark, Mask: 0xffffffff}
			}
			if err := h.XfrmStateAdd(&state); err != nil {
				return fmt.Errorf("state %s to %s: %w", from, to, err)
			}
		}
	}
	return nil
}
