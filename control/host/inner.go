package host

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// Sysctls of the namespaces behind workloads' veths. The claims are in the ledger like those of our own namespace, with the
// identity of the namespace: a container that was made anew behind the same veth has nothing of ours.

type (
	setInner  struct{ InnerSysctl }
	dropInner struct{ InnerSysctl }
)

func (setInner) Teardown() bool  { return false }
func (dropInner) Teardown() bool { return true }

func (o setInner) String() string {
	return fmt.Sprintf("set sysctl %s = %s in the namespace behind %s", o.Key, o.Value, o.Link)
}
func (o dropInner) String() string {
	return fmt.Sprintf("restore sysctl %s in the namespace behind %s", o.Key, o.Link)
}

type innerID struct{ link, path string }

func (s InnerSysctl) id() innerID { return innerID{s.Link, sysctlID(s.Key)} }

func diffInner(have, want []InnerSysctl) (set, drop []Op) {
	return diffList(have, want, InnerSysctl.id,
		func(h, w InnerSysctl) bool { return sameValue(h.Value, w.Value) },
		func(s InnerSysctl) Op { return setInner{s} }, func(s InnerSysctl) Op { return dropInner{s} })
}

func (l *ledger) inner(id innerID) *innerClaim {
	i := slices.IndexFunc(l.Inner, func(c innerClaim) bool { return c.id() == id })
	if i < 0 {
		return nil
	}
	return &l.Inner[i]
}

// alike is a claim on the same setting of the same namespace by another veth: a workload may have several.
func (l *ledger) alike(c innerClaim) *innerClaim {
	i := slices.IndexFunc(l.Inner, func(o innerClaim) bool {
		return o.Namespace == c.Namespace && o.Path == c.Path && o.Link != c.Link
	})
	if i < 0 {
		return nil
	}
	return &l.Inner[i]
}

// observeInner reads the claims whose namespace is still behind their link.
func (h *Host) observeInner() ([]InnerSysctl, error) {
	byLink := map[string][]innerClaim{}
	for _, c := range h.ledger.Inner {
		byLink[c.Link] = append(byLink[c.Link], c)
	}
	var out []InnerSysctl
	for link, claims := range byLink {
		err := h.behind(link, func(id string) error {
			for _, c := range claims {
				if c.Namespace != id {
					continue
				}
				value, err := readSysctl(c.Path)
				if err != nil {
					return fmt.Errorf("sysctl %s: %w", c.Key, err)
				}
				out = append(out, InnerSysctl{Link: c.Link, Key: c.Key, Value: value})
			}
			return nil
		})
		if err != nil && !isGone(err) {
			return nil, err
		}
	}
	slices.SortFunc(out, compareInner)
	return out, nil
}

func compareInner(a, b InnerSysctl) int {
	return cmp.Or(cmp.Compare(a.Link, b.Link), cmp.Compare(a.Key, b.Key))
}

func (o setInner) apply(_ context.Context, h *Host) error {
	path, err := sysctlPath(o.Key)
	if err != nil {
		return err
	}
	return h.behind(o.Link, func(id string) error {
		current, err := readSysctl(path)
		if err != nil {
			return fmt.Errorf("sysctl %s: %w", o.Key, err)
		}
		undo, err := h.claimInner(innerClaim{Link: o.Link, Namespace: id, Key: o.Key, Path: path, Value: o.Value, Before: current})
		if err != nil {
			return err
		}
		if sameValue(current, o.Value) {
			return nil
		}
		if err := writeSysctl(path, o.Value); err != nil {
			return unless(fmt.Errorf("the kernel refuses the value: %w", err), undo)
		}
		return nil
	})
}

// claimInner keeps the value before ours, once for the life of the claim.
func (h *Host) claimInner(c innerClaim) (undo func() error, err error) {
	return claim(h, &h.ledger.Inner, func() {
		if had := h.ledger.inner(c.id()); had != nil && had.Namespace == c.Namespace {
			had.Value = c.Value
			return
		}
		if other := h.ledger.alike(c); other != nil {
			c.Before = other.Before
		}
		h.forgetInner(c.id())
		h.ledger.Inner = append(h.ledger.Inner, c)
	})
}

func (o dropInner) apply(_ context.Context, h *Host) error {
	c := h.ledger.inner(o.id())
	if c == nil {
		return nil
	}
	err := h.behind(c.Link, func(id string) error {
		if id != c.Namespace || h.ledger.alike(*c) != nil {
			return nil
		}
		current, err := readSysctl(c.Path)
		if err != nil || sameValue(current, c.Before) {
			return err
		}
		return writeSysctl(c.Path, c.Before)
	})
	if err != nil && !isGone(err) {
		return fmt.Errorf("back to %q: %w", c.Before, err)
	}
	h.forgetInner(o.id())
	return h.save()
}

func (h *Host) forgetInner(id innerID) {
	h.ledger.Inner = filter(h.ledger.Inner, func(c innerClaim) bool { return c.id() != id })
}
