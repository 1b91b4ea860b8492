package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

func readSysctl(path string) (string, error) {
	data, err := os.ReadFile(procSys + path)
	return strings.TrimSpace(string(data)), err
}

func writeSysctl(path, value string) error {
	return os.WriteFile(procSys+path, []byte(value), 0)
}

// readKey reads with an error that says what to do.
func (h *Host) readKey(key, path string) (string, error) {
	value, err := readSysctl(path)
	if !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return "", fmt.Errorf("sysctl %s cannot be read: %w", key, err)
		}
		return value, nil
	}
	if name := sysctlLink(path); name != "" {
		if _, err := h.link(name); err != nil {
			return "", fmt.Errorf("sysctl %s: %w", key, err)
		}
	}
	return "", fmt.Errorf("sysctl %s is unknown to this kernel (no %s%s): check its spelling, or load the module that offers it: %w",
		key, procSys, path, fs.ErrNotExist)
}

func (h *Host) observeSysctls(links []netlink.Link) ([]Sysctl, error) {
	var out []Sysctl
	for _, c := range h.ledger.Sysctls {
		if c.Index != indexOf(links, sysctlLink(c.Path)) {
			continue
		}
		value, err := readSysctl(c.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("sysctl %s cannot be read: %w", c.Key, err)
		}
		if sameValue(value, c.Value) {
			value = c.Value // in the file's spelling
		}
		out = append(out, Sysctl{Key: c.Key, Value: value})
	}
	slices.SortFunc(out, func(a, b Sysctl) int { return cmp.Compare(a.Key, b.Key) })
	return out, nil
}

// indexOf is the index of the named link, 0 where there is none.
func indexOf(links []netlink.Link, name string) int {
	for _, l := range links {
		if l.Attrs().Name == name {
			return l.Attrs().Index
		}
	}
	return 0
}

func (o setSysctl) apply(_ context.Context, h *Host) error {
	path, err := sysctlPath(o.Key)
	if err != nil {
		return err
	}
	current, err := h.readKey(o.Key, path)
	if err != nil {
		return err
	}
	undo, err := h.claimSysctl(o.Sysctl, path, current)
	if err != nil {
		return err
	}
	if !sameValue(current, o.Value) {
		if err := writeSysctl(path, o.Value); err != nil {
			return unless(fmt.Errorf("the kernel refuses the value: %w", err), undo)
		}
		got, err := readSysctl(path)
		if err == nil && !sameValue(got, o.Value) {
			err = fmt.Errorf("the kernel made it %q: write the value that it takes", got)
		}
		if err != nil {
			return unless(errors.Join(err, writeSysctl(path, current)), undo)
		}
	}
	return h.settleAround(h.ledger.sysctl(path), false)
}

// claimSysctl records the value before ours, and those around it, once for the life of the claim.
func (h *Host) claimSysctl(s Sysctl, path, current string) (undo func() error, err error) {
	index := 0
	if name := sysctlLink(path); name != "" {
		link, err := h.link(name)
		if h.gone(err) != nil {
			return nil, err
		}
		if err == nil {
			index = link.Attrs().Index
		}
	}
	if c := h.ledger.sysctl(path); c != nil && c.Index == index {
		return claim(h, &h.ledger.Sysctls, func() { c.Key, c.Value = s.Key, s.Value })
	}
	c := sysctlClaim{Key: s.Key, Path: path, Index: index, Value: s.Value, Before: current}
	if c.Around, err = h.valuesAround(path); err != nil {
		return nil, err
	}
	return claim(h, &h.ledger.Sysctls, func() {
		h.forgetSysctl(path) // of an interface that is gone
		h.ledger.Sysctls = append(h.ledger.Sysctls, c)
	})
}

// valuesAround are the values before any change of ours, so that claims may be given up in any order.
func (h *Host) valuesAround(path string) (map[string]string, error) {
	paths, err := around(path)
	if err != nil {
		return nil, err
	}
	values := make(map[string]string, len(paths))
	for _, p := range paths {
		value, err := readSysctl(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("sysctl %s cannot be read: %w", p, err)
		}
		values[p] = value
	}
	for _, c := range h.ledger.Sysctls {
		if _, ok := values[c.Path]; ok {
			values[c.Path] = c.Before
		}
	}
	return values, nil
}

// settleAround writes what stands around a claim that was just written: other claims get their own value again; and,
// where the claim is being given up, the rest gets back what it had.
func (h *Host) settleAround(c *sysctlClaim, giveBack bool) error {
	var errs []error
	for path, before := range c.Around {
		value := before
		if other := h.ledger.sysctl(path); other != nil {
			value = other.Value
			if giveBack {
				other.Before = before
			}
		} else if !giveBack {
			continue
		}
		current, err := readSysctl(path)
		if errors.Is(err, fs.ErrNotExist) { // the interface went
			continue
		}
		if err == nil && !sameValue(current, value) {
			err = writeSysctl(path, value)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sysctl %s, changed along with it: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

func (o dropSysctl) apply(_ context.Context, h *Host) error {
	path, err := sysctlPath(o.Key)
	if err != nil {
		return err
	}
	c := h.ledger.sysctl(path)
	if c == nil {
		return nil
	}
	current, err := readSysctl(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !sameValue(current, c.Before):
		if err := writeSysctl(path, c.Before); err != nil {
			return fmt.Errorf("back to %q: %w", c.Before, err)
		}
	}
	if err := h.settleAround(c, true); err != nil {
		return err
	}
	h.forgetSysctl(path)
	return h.save()
}

func (h *Host) forgetSysctl(path string) {
	h.ledger.Sysctls = filter(h.ledger.Sysctls, func(c sysctlClaim) bool { return c.Path != path })
}
