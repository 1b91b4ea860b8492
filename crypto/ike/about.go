package ike

import (
	"context"
	"log/slog"
	"slices"
	"strings"
)

// About is what charon says of itself.
type About struct {
	Version string   // such as "strongSwan 5.9.8"
	Plugins []string // that it has loaded, sorted
	Foreign []string // connections that are not of ours, sorted
}

// AskAbout asks the charon behind a socket. ErrNoCharon, ErrProtocol.
func AskAbout(ctx context.Context, socket string) (out About, err error) {
	err = New(socket, slog.New(slog.DiscardHandler)).with(ctx, func(ctx context.Context, s *session) error {
		version, err := s.ask(ctx, "version", nil)
		if err != nil {
			return err
		}
		v := newSection(version)
		out.Version = strings.TrimSpace(v.text("daemon") + " " + v.text("version"))
		stats, err := s.ask(ctx, "stats", nil)
		if err != nil {
			return err
		}
		st := newSection(stats)
		out.Plugins = slices.Sorted(slices.Values(st.list("plugins")))
		conns, err := s.ask(ctx, "get-conns", nil)
		if err != nil {
			return err
		}
		c := newSection(conns)
		for _, name := range c.list("conns") {
			if !strings.HasPrefix(name, prefix) {
				out.Foreign = append(out.Foreign, name)
			}
		}
		slices.Sort(out.Foreign)
		for _, read := range []section{v, st, c} {
			if *read.err != nil {
				return *read.err
			}
		}
		return nil
	})
	return out, err
}
