package node

import (
	"context"
	"strings"
)

type hostName struct{ *Node }

func (p hostName) set(_ context.Context, s State) error { return p.o.SetHostName(s.HostName) }

// unset leaves the name: a box without one would be called nothing.
func (hostName) unset(context.Context) error { return nil }

func (p hostName) holds(_ context.Context, s State) bool {
	name, err := p.o.HostName()
	return err == nil && name == s.HostName
}

type resolver struct{ *Node }

func (p resolver) path() string { return p.system("/etc/resolv.conf") }

func (p resolver) text(s State) string {
	text := "# written by Sluice: node.dns\n"
	for _, a := range s.DNS {
		text += "nameserver " + a.String() + "\n"
	}
	return text
}

func (p resolver) set(_ context.Context, s State) error  { return put(p.path(), p.text(s), 0o644) }
func (p resolver) unset(context.Context) error           { return remove(p.path()) }
func (p resolver) holds(_ context.Context, s State) bool { return contains(p.path(), p.text(s)) }

type clock struct{ *Node }

const timesync = "systemd-timesyncd.service"

func (p clock) path() string { return p.system("/run/systemd/timesyncd.conf.d/50-sluice.conf") }

// text takes the servers that the image was built with out, too.
func (p clock) text(s State) string {
	return "# written by Sluice: node.ntp\n[Time]\nNTP=" + joined(s.NTP) + "\nFallbackNTP=\n"
}

func (p clock) set(ctx context.Context, s State) error {
	if err := put(p.path(), p.text(s), 0o644); err != nil {
		return err
	}
	return p.o.Units(ctx, "restart", timesync)
}

func (p clock) unset(ctx context.Context) error {
	if err := remove(p.path()); err != nil {
		return err
	}
	return p.o.Units(ctx, "restart", timesync)
}

func (p clock) holds(_ context.Context, s State) bool { return contains(p.path(), p.text(s)) }

// keysText is authorized_keys(5).
func keysText(s *SSH) string { return strings.Join(s.Keys, "\n") + "\n" }
