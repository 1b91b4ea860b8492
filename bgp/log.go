package bgp

import (
	"context"
	"log/slog"
)

// quiet passes GoBGP's warnings and errors on, and its information as debug: it logs each step of each session,
// where ours are one line up and one line down.
type quiet struct{ slog.Handler }

func (q quiet) lowered(l slog.Level) slog.Level {
	if l < slog.LevelWarn {
		return min(l, slog.LevelDebug)
	}
	return l
}

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return q.Handler.Enabled(ctx, q.lowered(l))
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = q.lowered(r.Level)
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
