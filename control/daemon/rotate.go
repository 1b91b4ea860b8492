package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/control/api"
	"sluice/control/config"
	"sluice/control/tunnel"
	"sluice/crypto/ipsec"
	"sluice/crypto/keys"
	"sluice/crypto/wireguard"
)

// RotateKey has a tunnel take new keys, without a lost packet: WireGuard's staged private key, the next epoch of static
// keys, or keys that charon negotiates anew.
func (d *Daemon) RotateKey(ctx context.Context, r api.RotateRequest) (api.Rotated, error) {
	conf := d.liveConfig().Tunnels
	i := slices.IndexFunc(conf, func(t config.Tunnel) bool { return t.Name == r.Tunnel })
	if i < 0 {
		return api.Rotated{}, refused(fmt.Errorf("there is no tunnel %q; `sluice show tunnels` lists them", r.Tunnel))
	}
	var out api.Rotated
	var err error
	switch t := conf[i]; {
	case r.Forget:
		out, err = forgetKey(t)
	case t.Type == config.TypeWireGuard && len(sharers(conf, t)) > 0:
		err = fmt.Errorf("tunnel %s shares %s with %s, which would be cut off: give each tunnel a private_key_file of its own first",
			t.Name, t.PrivateKeyFile, strings.Join(sharers(conf, t), ", "))
	case t.Type == config.TypeWireGuard && r.Stage:
		out, err = d.stageKey(ctx, t)
	case t.Type == config.TypeWireGuard:
		out, err = d.rotateWireGuard(ctx, t)
	case r.Stage:
		err = fmt.Errorf("tunnel %s is of type ipsec: nothing has to be staged; run: sluice key rotate %s", t.Name, t.Name)
	default:
		out, err = d.rotateIPsec(ctx, t)
	}
	return out, refused(err)
}

// sharers are the other tunnels that have t's private key file, by name; behind links, too.
func sharers(list []config.Tunnel, t config.Tunnel) []string {
	var out []string
	for _, other := range list {
		if other.Name != t.Name && other.Type == config.TypeWireGuard && keys.FilesOf(other.PrivateKeyFile) == keys.FilesOf(t.PrivateKeyFile) {
			out = append(out, other.Name)
		}
	}
	return out
}

// stageKey makes the next private key of a tunnel, or tells of the one that waits already.
func (d *Daemon) stageKey(ctx context.Context, t config.Tunnel) (api.Rotated, error) {
	out, err := d.wireguardBefore(ctx, t)
	if err != nil {
		return out, err
	}
	out.Staged, out.File, out.OldPublicKey = true, keys.FilesOf(t.PrivateKeyFile).Next, out.PublicKey
	out.PublicKey, err = keys.Generate(out.File)
	if errors.Is(err, keys.ErrExists) {
		out.Again = true
		out.PublicKey, err = keys.PublicKey(out.File)
	}
	if err == nil && !out.Again {
		d.tunnelNotice(tunnel.Event{Kind: tunnel.KeyStaged, Tunnel: t.Name, Text: "its next public key is " + out.PublicKey})
	}
	return out, err
}

// forgetKey removes the private key that a tunnel had before its present one. It opens nothing that was recorded, for
// sessions have keys of their own; but whoever finds it is this node to every peer that still knows it.
func forgetKey(t config.Tunnel) (api.Rotated, error) {
	if t.Type != config.TypeWireGuard {
		return api.Rotated{}, fmt.Errorf("tunnel %s is of type ipsec: it keeps no old key", t.Name)
	}
	out := api.Rotated{Tunnel: t.Name, Type: t.Type, Forgotten: true, OldFile: keys.FilesOf(t.PrivateKeyFile).Old, Peers: []api.RotatedPeer{}}
	err := os.Remove(out.OldFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("tunnel %s keeps no old key: there is no %s", t.Name, out.OldFile)
	}
	return out, err
}

// wireguardBefore is a tunnel as it is, with its present public key.
func (d *Daemon) wireguardBefore(ctx context.Context, t config.Tunnel) (api.Rotated, error) {
	out := api.Rotated{Tunnel: t.Name, Type: t.Type, Peers: []api.RotatedPeer{}}
	all, err := d.wireguard.Status(ctx)
	i := slices.IndexFunc(all, func(s wireguard.TunnelStatus) bool { return s.Name == t.Name })
	if i < 0 {
		return out, errors.Join(fmt.Errorf("tunnel %s has no device: see the log, and `sluice show tunnels %s`", t.Name, t.Name), err)
	}
	out.Backend, out.PublicKey = string(all[i].Backend), all[i].PublicKey
	for _, p := range t.Peers {
		inTouch := slices.ContainsFunc(all[i].Peers, func(s wireguard.PeerStatus) bool {
			return slices.Contains(p.PublicKeys, s.PublicKey) && s.Endpoint != "" && time.Since(s.LastHandshake) < sessionLife
		})
		out.Peers = append(out.Peers, api.RotatedPeer{Name: p.Name, InTouch: inTouch})
	}
	return out, nil
}

func (d *Daemon) rotateWireGuard(ctx context.Context, t config.Tunnel) (api.Rotated, error) {
	out, err := d.wireguardBefore(ctx, t)
	if err != nil {
		return out, err
	}
	files := keys.FilesOf(t.PrivateKeyFile)
	public, err := keys.PublicKey(files.Next)
	if errors.Is(err, fs.ErrNotExist) {
		return out, fmt.Errorf("tunnel %s has no next key: run `sluice key rotate %s --stage` and let its peers know the public key that it prints, then run this again",
			t.Name, t.Name)
	}
	if err != nil {
		return out, err
	}
	out.File, out.OldFile, out.OldPublicKey, out.PublicKey = t.PrivateKeyFile, files.Old, out.PublicKey, public
	// Half a rotation helps nobody: who asked may go.
	ctx = context.WithoutCancel(ctx)
	if err := d.wireguard.Rotate(ctx, t.Name, files.Next); err != nil {
		// The old key may not have come back. A driver that stops is not to be worked with any more.
		if !errors.Is(err, context.Canceled) {
			if repair := d.engine.Reconcile(ctx, "a change of the key of tunnel "+t.Name+" failed"); repair != nil {
				d.opts.Log.Error("repair after a failed change of a key", "tunnel", t.Name, "error", repair)
			}
		}
		return out, err
	}
	d.tunnelNotice(tunnel.Event{Kind: tunnel.KeyRotated, Tunnel: t.Name, Text: "it uses its next key, " + public})
	// What is wanted names the public key, and would set the old one again.
	return out, d.engine.Recompile(ctx, "the key of tunnel "+t.Name+" was rotated")
}

func (d *Daemon) rotateIPsec(ctx context.Context, t config.Tunnel) (api.Rotated, error) {
	out := api.Rotated{Tunnel: t.Name, Type: t.Type, Backend: t.IPsec.Keying, Peers: []api.RotatedPeer{}}
	before, err := d.ipsecTunnel(ctx, t.Name)
	if err != nil {
		return out, err
	}
	if before.Charon != "" {
		return out, fmt.Errorf("keys of tunnel %s: %s", t.Name, before.Charon)
	}
	if err := d.ipsec.Rotate(context.WithoutCancel(ctx), t.Name); err != nil {
		return out, fmt.Errorf("keys of tunnel %s: %w", t.Name, err)
	}
	after, err := d.ipsecTunnel(ctx, t.Name)
	if err != nil {
		return out, err
	}
	for _, p := range t.Peers {
		named := func(s ipsec.PeerStatus) bool { return s.Name == p.Name }
		was, is := find(before.Peers, named), find(after.Peers, named)
		one := api.RotatedPeer{Name: p.Name, OldEpoch: was.Epoch, Epoch: is.Epoch, InTouch: is.Epoch > was.Epoch}
		if t.IPsec.Keying == config.KeyingIKE {
			one.InTouch = was.State == string(api.PeerUp)
		}
		out.Peers = append(out.Peers, one)
	}
	if t.IPsec.Keying == config.KeyingIKE {
		d.tunnelNotice(tunnel.Event{Kind: tunnel.KeyRotated, Tunnel: t.Name, Text: "charon negotiates its keys anew"})
	}
	d.epochs.look([]ipsec.TunnelStatus{after}, d.tunnelNotice)
	return out, nil
}

// ipsecTunnel is the status of one tunnel.
func (d *Daemon) ipsecTunnel(ctx context.Context, name string) (ipsec.TunnelStatus, error) {
	all, err := d.ipsec.Status(ctx)
	if i := slices.IndexFunc(all, func(s ipsec.TunnelStatus) bool { return s.Name == name }); i >= 0 {
		return all[i], nil
	}
	if err == nil {
		err = fmt.Errorf("tunnel %s has no device: see the log, and `sluice show tunnels %s`", name, name)
	}
	return ipsec.TunnelStatus{}, err
}
