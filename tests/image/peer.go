package image

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/tests/nstest"
)

// Peer is a WireGuard of somebody else's, in a process that lives in its namespace.
type Peer struct {
	private wgtypes.Key
	Public  string
}

// NewPeer makes its keys.
func NewPeer(t testing.TB) Peer {
	t.Helper()
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return Peer{private: private, Public: private.PublicKey().String()}
}

// rolePeer is that of the process, which answers by roles.
const rolePeer = "wireguard"

var roles = map[string]map[string]nstest.Handler{rolePeer: {"up": wireguard}}

// Start has it listen on 51820 for the node with that key, with 10.200.0.0 as its end of the tunnel.
func (p Peer) Start(t testing.TB, ns *nstest.NS, node string) {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(node)
	if err != nil {
		t.Fatalf("the node's key %q: %v", node, err)
	}
	config := fmt.Sprintf("private_key=%x\nlisten_port=51820\npublic_key=%s\nendpoint=198.18.0.2:51820\nallowed_ip=10.200.0.1/32\n", p.private[:], hex.EncodeToString(key))
	nstest.Must[bool](t, ns.Child(t, rolePeer), "up", config)
	ns.Address(t, "wg0", "10.200.0.0/31")
	ns.Up(t, "wg0")
}

func wireguard(argument json.RawMessage) (any, error) {
	var config string
	if err := json.Unmarshal(argument, &config); err != nil {
		return nil, err
	}
	link, err := tun.CreateTUN("wg0", device.DefaultMTU)
	if err != nil {
		return nil, err
	}
	d := device.NewDevice(link, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
	if err := d.IpcSet(config); err != nil {
		return nil, err
	}
	return true, d.Up()
}
