package wireguard

import (
	"fmt"
	"net"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// A peer that is in touch, and is told to be elsewhere, may be followed back by the device: by a packet that was under way, or
// because nothing of ours came to the new endpoint yet that would have brought the other end along.
var leadAfter = []time.Duration{2 * time.Second, 3 * time.Second} // each since the one before

// inTouch is within which time a peer was heard that is in touch. Who looks for a peer elsewhere because it is silent has waited longer.
const inTouch = 10 * time.Second

// lead speaks to a peer at the endpoint that op has written, and sees to it that the device goes on to. The caller holds d.mu.
func (d *Driver) lead(dev device, op Op) error {
	have, err := dev.state()
	if err != nil {
		return err
	}
	p, ok := peerOf(have, op.peer.PublicKey)
	if !ok {
		return nil
	}
	if time.Since(p.LastHandshakeTime) >= sessionLife {
		return dev.greet(p.PublicKey)
	}
	if time.Since(d.notes.of(op.tunnel.Name, op.peer.PublicKey).heard) < inTouch {
		go d.leadAgain(op)
	}
	return dev.poke(p.PublicKey)
}

// leadAgain writes the endpoint again while the peer is heard from elsewhere. Then it may roam as it likes.
func (d *Driver) leadAgain(op Op) {
	for _, after := range leadAfter {
		select {
		case <-d.stopping.Done():
			return
		case <-time.After(after):
		}
		if err := d.setBack(op); err != nil {
			d.log.Warn("write an endpoint again", "tunnel", op.tunnel.Name, "peer", peerName(op.peer), "error", err)
			return
		}
	}
}

// setBack writes the endpoint where the device has left it and nobody has written another one since.
func (d *Driver) setBack(op Op) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, key, to := op.tunnel.Name, op.peer.PublicKey, op.peer.Endpoint
	if d.stopping.Err() != nil || d.notes.of(name, key).endpoint != to {
		return nil
	}
	link, err := d.links.Find(name)
	if err != nil {
		return err
	}
	dev, err := d.running(link)
	if err != nil {
		return err
	}
	have, err := dev.state()
	if err != nil {
		return err
	}
	p, ok := peerOf(have, key)
	if !ok || endpointOf(p) == to {
		return nil
	}
	d.log.Info(fmt.Sprintf("peer is heard from %s: its endpoint is written again", endpointOf(p)), "tunnel", name, "peer", peerName(op.peer), "endpoint", to)
	cfg := wgtypes.PeerConfig{PublicKey: p.PublicKey, UpdateOnly: true, Endpoint: net.UDPAddrFromAddrPort(to)}
	if err := dev.configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{cfg}}); err != nil {
		return err
	}
	return dev.poke(p.PublicKey)
}

func peerOf(have *wgtypes.Device, key string) (wgtypes.Peer, bool) {
	i := slices.IndexFunc(have.Peers, func(p wgtypes.Peer) bool { return encodeKey(p.PublicKey) == key })
	if i < 0 {
		return wgtypes.Peer{}, false
	}
	return have.Peers[i], true
}
