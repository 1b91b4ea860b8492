package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/keys"
	"sluice/crypto/wireguard"
	"sluice/crypto/wireguard/child"
	"sluice/tests/bench/tunnel/trial"
)

// Keys of lanes that tables and plots name. Of those in the machine some have the same method as one of the host's.
const (
	Plain       = "plain"
	WireGuardGo = "wireguard-go"
	Embedded    = "embedded"
	AllCores    = "embedded-all-cores"

	WireGuard = "wireguard"
	ESPGCM    = "esp-gcm"
	ESPChaCha = "esp-chacha"
	ESPNull   = "esp-null"
)

// Rival is what the report calls a lane.
type Rival struct{ Key, Label, Colour string }

// Host and Machine are the lanes, in the order of tables.
var (
	Host = []Rival{
		{Plain, "plain forwarding", "#1f4fa3"},
		{WireGuardGo, "wireguard-go", "#6fa3e0"},
		{Embedded, "Sluice, userspace WireGuard", "#d1342f"},
		{AllCores, "the same, on all cores", "#f0857d"},
	}
	Machine = []Rival{
		{Plain, "plain forwarding", "#1f4fa3"},
		{WireGuard, "WireGuard", "#d1342f"},
		{ESPGCM, "ESP, AES-GCM-256", "#2e8b57"},
		{ESPChaCha, "ESP, ChaCha20-Poly1305", "#8fce9f"},
		{ESPNull, "ESP, no cipher", "#b0b0b0"},
	}
)

// wireguardOverhead is what WireGuard adds to a packet over IPv4, bytes.
const wireguardOverhead = 60

const wireguardPort = 51820

// load brings a lane's tunnel about, and names the processes that are part of it. The closer takes it away.
func (w *workshop) load(ctx context.Context, key string, s *trial.Site) (pids []int, closer func() error, err error) {
	switch key {
	case Plain:
		return nil, func() error { return nil }, s.Plain()
	case Embedded:
		return w.ends(ctx, s, w.embedded)
	case AllCores:
		free := *w
		free.cpu = anyCPU
		return free.ends(ctx, s, free.embedded)
	case WireGuardGo:
		return w.ends(ctx, s, w.wireguardGo)
	}
	return nil, nil, fmt.Errorf("no lane is called %q", key)
}

// startEnd brings one end of a tunnel about, and returns how it is taken away.
type startEnd func(ctx context.Context, s *trial.Site, e *trial.End, own, peer key) (stop func() error, err error)

// ends makes both ends of a tunnel, with a pair of keys each, and leads the site's only path through it. What runs in the
// gateways then are its processes.
func (w *workshop) ends(ctx context.Context, s *trial.Site, start startEnd) (pids []int, closer func() error, err error) {
	var stops []func() error
	closer = func() error {
		var errs []error
		for _, stop := range stops {
			errs = append(errs, stop())
		}
		return errors.Join(errs...)
	}
	own := map[*trial.End]key{}
	for _, e := range s.Ends() {
		if own[e], err = w.newKey(); err != nil {
			return nil, nil, err
		}
	}
	for _, e := range s.Ends() {
		stop, err := start(ctx, s, e, own[e], own[e.Other()])
		if err != nil {
			return nil, nil, errors.Join(err, closer())
		}
		stops = append(stops, stop)
		some, err := e.Box.Processes()
		if err == nil && len(some) == 0 {
			err = errors.New("no process runs the tunnel")
		}
		if err := errors.Join(err, s.Through(e, 0)); err != nil {
			return nil, nil, errors.Join(err, closer())
		}
		pids = append(pids, some...)
	}
	return pids, closer, nil
}

// key is a pair of them: the file of the private one, and the public one in base64.
type key struct{ file, public string }

func (w *workshop) newKey() (k key, err error) {
	dir, err := os.MkdirTemp(w.dir, "key-")
	if err != nil {
		return k, err
	}
	k.file = filepath.Join(dir, "private")
	k.public, err = keys.Generate(k.file)
	return k, err
}

// embedded is the tunnel that Sluice makes where the kernel has no WireGuard: its driver starts the process of it.
func (w *workshop) embedded(ctx context.Context, s *trial.Site, e *trial.End, own, peer key) (stop func() error, err error) {
	want := wireguard.State{Tunnels: []wireguard.Tunnel{{
		Name: trial.Tunnel(0), Backend: wireguard.Userspace, PrivateKeyFile: own.file, PublicKey: own.public, ListenPort: wireguardPort,
		MTU: s.Wire.MTU - s.Overhead,
		Peers: []wireguard.Peer{{Name: "other", PublicKey: peer.public, Endpoint: netip.AddrPortFrom(e.Other().Outer(0), wireguardPort),
			AllowedIPs: []netip.Prefix{e.Other().Network(0)}}},
	}}}
	command := []string{filepath.Join(w.dir, "sluice"), child.Verb}
	if w.cpu != anyCPU { // the driver's own threads start it
		command = append([]string{"taskset", "--cpu-list", strconv.Itoa(w.cpu)}, command...)
	}
	var driver *wireguard.Driver
	err = e.Box.Do(func() (err error) {
		driver, err = wireguard.New(slog.New(slog.DiscardHandler), wireguard.Options{StateDir: filepath.Dir(own.file), Command: command})
		return err
	})
	if err != nil {
		return nil, err
	}
	stop = func() error {
		defer driver.Stop()
		return e.Box.Do(func() error { return driver.Down(context.WithoutCancel(ctx)) })
	}
	err = e.Box.Do(func() error {
		for _, op := range driver.Diff(wireguard.State{}, want) {
			if err := driver.Apply(ctx, op); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// wireguardGo is the reference program, in a mount namespace of its own: all that are on a machine share a directory of
// sockets.
func (w *workshop) wireguardGo(ctx context.Context, s *trial.Site, e *trial.End, own, peer key) (stop func() error, err error) {
	const script = `mount -t tmpfs none /run && exec "$0" --foreground "$1"`
	p, err := w.start(ctx, e.Box, "unshare", "--mount", "sh", "-c", script, filepath.Join(w.dir, "wireguard-go"), trial.Tunnel(0))
	if err != nil {
		return nil, err
	}
	if err := configure(ctx, p, e, own, peer); err != nil {
		return nil, errors.Join(fmt.Errorf("wireguard-go: %w", err), p.stop())
	}
	return p.stop, nil
}

// configure speaks wireguard-go's configuration protocol through its socket.
func configure(ctx context.Context, p *process, e *trial.End, own, peer key) error {
	private, err := keys.Load(own.file)
	if err != nil {
		return err
	}
	secret := private.Bytes()
	public, err := wgtypes.ParseKey(peer.public)
	if err != nil {
		return err
	}
	at := fmt.Sprintf("/proc/%d/root/run/wireguard/%s.sock", p.cmd.Process.Pid, trial.Tunnel(0))
	c, err := p.dial(ctx, at)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = fmt.Fprintf(c, "set=1\nprivate_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s\nallowed_ip=%s\n\n", hex.EncodeToString(secret[:]), wireguardPort,
		hex.EncodeToString(public[:]), netip.AddrPortFrom(e.Other().Outer(0), wireguardPort), e.Other().Network(0))
	if err != nil {
		return err
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err == nil && !strings.HasPrefix(string(answer), "errno=0\n") {
		err = fmt.Errorf("it answers %.200q", answer)
	}
	return err
}
