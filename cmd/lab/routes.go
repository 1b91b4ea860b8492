package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/bgp/torsim"
	"sluice/plural"
)

// advertised is what configs/lab-gateway.yaml announces.
var advertised = []string{
	"203.0.113.0/24", "203.0.113.10/32", "203.0.113.11/32",
	"2001:db8:100::/48", "2001:db8:100::10/128", "2001:db8:100::11/128",
}

// complete says what a table lacks: every prefix, from sessions that are up, none of it stale.
func complete(t Table) error {
	var errs []error
	if n := t.Established(); n != 2 {
		errs = append(errs, fmt.Errorf("%d of 2 sessions are up", n))
	}
	if missing := missing(t); len(missing) > 0 {
		errs = append(errs, fmt.Errorf("the ToR lacks %s", strings.Join(missing, ", ")))
	}
	if n := t.Stale(); n > 0 {
		errs = append(errs, fmt.Errorf("%s stale", plural.Of(n, "prefix is", "prefixes are")))
	}
	return errors.Join(errs...)
}

func missing(t Table) []string {
	var out []string
	for _, p := range advertised {
		if !slices.ContainsFunc(t.Entries, func(e torsim.Entry) bool { return e.Prefix.String() == p }) {
			out = append(out, p)
		}
	}
	return out
}

// WaitRoutes waits until the ToR's router has everything that the gateway's file advertises, from both sessions.
func (s *Site) WaitRoutes(ctx context.Context) (t Table, err error) {
	err = poll(ctx, func() error {
		if t, err = s.Router.Table(ctx); err != nil {
			return err
		}
		return complete(t)
	})
	return t, err
}
