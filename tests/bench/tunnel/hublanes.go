package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/crypto/keys"
	"sluice/tests/bench/node"
)

// sluiceHub is the whole of Sluice: its daemon, driven by its command.
type sluiceHub struct {
	h *hub
	n *node.Node
}

func (s *sluiceHub) write(ctx context.Context, file []byte) error {
	if err := s.n.Write(map[string][]byte{"sluice.yaml": file}); err != nil {
		return err
	}
	return s.n.Command(ctx, "apply", "-c", s.n.Path("sluice.yaml"))
}

func (s *sluiceHub) apply(ctx context.Context, t traits) error {
	return s.write(ctx, s.h.sluiceFile(t, true))
}
func (s *sluiceHub) change(ctx context.Context, t traits) error { return s.apply(ctx, t) }
func (s *sluiceHub) clear(ctx context.Context) error {
	return s.write(ctx, s.h.sluiceFile(traits{}, false))
}

func (s *sluiceHub) processes() (tunnels, others []int, err error) {
	all, err := s.h.box.Processes()
	for _, pid := range all {
		if pid != s.n.PID {
			tunnels = append(tunnels, pid)
		}
	}
	return tunnels, []int{s.n.PID}, err
}

// Close ends the tunnels' processes as well. They outlive a daemon, which an interrupt of the whole run ends first: what is left in
// the namespace then is nobody else's.
func (s *sluiceHub) Close() error {
	err := errors.Join(s.n.Command(context.Background(), "down"), s.n.Close())
	left, failed := s.h.box.Processes()
	for _, pid := range left {
		if e := unix.Kill(pid, unix.SIGKILL); !errors.Is(e, unix.ESRCH) {
			failed = errors.Join(failed, e)
		}
	}
	return errors.Join(err, failed)
}

// wgHub does what wg-quick does, with the reference program where that takes the kernel's device: wg setconf, and one batch of ip(8)
// for all routes, where wg-quick starts ip for each. A change is wg syncconf.
type wgHub struct {
	w         *workshop
	h         *hub
	processed []*process
}

func (g *wgHub) apply(ctx context.Context, t traits) error {
	for n := range g.h.keys {
		const script = `mount -t tmpfs none /run && exec "$0" --foreground "$1"`
		p, err := g.w.start(ctx, g.h.box, "unshare", "--mount", "sh", "-c", script, filepath.Join(g.w.dir, "wireguard-go"), hubTunnel(n))
		if err != nil {
			return err
		}
		g.processed = append(g.processed, p)
		c, err := p.dial(ctx, fmt.Sprintf("/proc/%d/root/run/wireguard/%s.sock", p.cmd.Process.Pid, hubTunnel(n)))
		if err != nil {
			return errors.Join(err, g.clear(ctx))
		}
		c.Close()
		if err := g.wg(ctx, n, "setconf", t); err != nil {
			return err
		}
		var batch strings.Builder
		fmt.Fprintf(&batch, "address add %s dev %s\nlink set %s mtu 1440 up\n", g.h.inner(n), hubTunnel(n), hubTunnel(n))
		for _, p := range g.h.peers {
			if p.tunnel == n {
				fmt.Fprintf(&batch, "route add %s dev %s\n", p.prefix, hubTunnel(n))
			}
		}
		if err := g.ip(ctx, batch.String()); err != nil {
			return err
		}
	}
	return nil
}

func (g *wgHub) change(ctx context.Context, t traits) error {
	p := g.h.peers[g.h.moved]
	if err := g.wg(ctx, p.tunnel, "syncconf", t); err != nil {
		return err
	}
	link := hubTunnel(p.tunnel)
	return g.ip(ctx, fmt.Sprintf("route add %s dev %s\nroute del %s dev %s\n", p.prefix, link, g.h.old, link))
}

func (g *wgHub) ip(ctx context.Context, batch string) error {
	_, err := g.h.box.Run(ctx, batch, "ip", "-batch", "-")
	return err
}

// wg runs a verb of wg(8) with the whole configuration of a tunnel, where its device's socket is.
func (g *wgHub) wg(ctx context.Context, n int, verb string, t traits) error {
	private, err := keys.Load(g.h.keys[n].file)
	if err != nil {
		return err
	}
	secret := private.Bytes()
	file := filepath.Join(g.w.dir, hubTunnel(n)+".conf")
	if err := os.WriteFile(file, g.h.wgFile(n, base64.StdEncoding.EncodeToString(secret[:]), t.keepalive), 0o600); err != nil {
		return err
	}
	_, err = g.h.box.Run(ctx, "", "nsenter", "--target", strconv.Itoa(g.processed[n].cmd.Process.Pid), "--mount", "wg", verb, hubTunnel(n), file)
	return err
}

func (g *wgHub) clear(context.Context) error {
	var errs []error
	for _, p := range g.processed {
		errs = append(errs, p.stop())
	}
	g.processed = nil
	return errors.Join(errs...)
}

func (g *wgHub) processes() (tunnels, others []int, err error) {
	tunnels, err = g.h.box.Processes()
	return tunnels, nil, err
}

func (g *wgHub) Close() error { return g.clear(context.Background()) }
