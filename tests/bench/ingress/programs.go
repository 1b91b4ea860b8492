package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"structs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"sluice/tests/bench/lane"
)

// workshop is what all lanes of a run share: compiled programs.
type workshop struct {
	lane   *lane.Objects
	rivals *ebpf.CollectionSpec
}

func newWorkshop(ctx context.Context) (*workshop, error) {
	objects, err := lane.NewObjects(ctx)
	if err != nil {
		return nil, err
	}
	spec, err := lane.Compile(ctx, "tests/bench/ingress/bpf/rivals.c")
	if err != nil {
		objects.Close()
		return nil, err
	}
	return &workshop{objects, spec}, nil
}

// Close closes descriptors.
func (w *workshop) Close() { w.lane.Close() }

// trieKey is struct trie_key.
type trieKey struct {
	_    structs.HostLayout
	Bits uint32
	Addr [4]byte
}

// program loads one of rivals.c; lpm knows the prefixes.
func (w *workshop) program(name string, prefixes []netip.Prefix) (*ebpf.Collection, error) {
	spec := w.rivals.Copy()
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	spec.Maps["trie"].MaxEntries = uint32(max(1, len(prefixes)))
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	if name != "lpm" {
		return c, nil
	}
	for chunk := range slices.Chunk(prefixes, 4096) {
		keys := make([]trieKey, len(chunk))
		for i, p := range chunk {
			keys[i] = trieKey{Bits: uint32(p.Bits()), Addr: p.Addr().As4()}
		}
		if _, err := c.Maps["trie"].BatchUpdate(keys, make([]uint32, len(keys)), nil); err != nil {
			c.Close()
			return nil, fmt.Errorf("fill the LPM_TRIE: %w", err)
		}
	}
	return c, nil
}

// xdpProgram attaches one of rivals.c to the uplink, in the driver as Sluice is.
func xdpProgram(name string) func(context.Context, *workshop, *lane.Site, *Content) (func() error, error) {
	return func(_ context.Context, w *workshop, s *lane.Site, content *Content) (func() error, error) {
		c, err := w.program(name, content.Prefixes)
		if err != nil {
			return nil, err
		}
		defer c.Close() // the link keeps the program, and the program its map
		var attached link.Link
		err = s.Box.Do(func() error {
			attached, err = link.AttachXDP(link.XDPOptions{Program: c.Programs[name], Interface: s.UplinkIndex, Flags: link.XDPDriverMode})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("attach %s: %w", name, err)
		}
		return attached.Close, nil
	}
}

// loadXDPFilter has the tool load its program and enter one address. The rest goes straight into its map with the same
// value: the tool takes one address a call. A bpffs of its own keeps its pins apart from those of the machine.
func loadXDPFilter(ctx context.Context, _ *workshop, s *lane.Site, c *Content) (func() error, error) {
	first := c.Prefixes[0].Addr()
	script := strings.Join([]string{
		"mount -t bpf bpf /sys/fs/bpf", "xdp-filter load -m native -f ipv4 " + lane.Uplink, "xdp-filter ip -m src " + first.String(),
	}, " && ")
	if _, err := s.Box.Run(ctx, "", "unshare", "--mount", "sh", "-c", script); err != nil {
		return nil, err
	}
	var id ebpf.ProgramID
	if err := s.Box.Do(func() error {
		l, err := netlink.LinkByIndex(s.UplinkIndex)
		if err != nil {
			return err
		}
		if l.Attrs().Xdp == nil || !l.Attrs().Xdp.Attached {
			return fmt.Errorf("%w: no program", errNoFilter)
		}
		id = ebpf.ProgramID(l.Attrs().Xdp.ProgId)
		return nil
	}); err != nil {
		return nil, err
	}
	m, err := mapOf(id, "filter_ipv4")
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var flags []uint64 // per CPU
	if err := m.Lookup(first.As4(), &flags); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoFilter, err)
	}
	for _, p := range c.Prefixes[1:] {
		if err := m.Put(p.Addr().As4(), flags); err != nil {
			return nil, fmt.Errorf("fill the map of xdp-filter: %w", err)
		}
	}
	return func() error { return nil }, nil
}

// mapOf opens the map of a program by its name.
func mapOf(id ebpf.ProgramID, name string) (*ebpf.Map, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, err
		}
		if i, err := m.Info(); err == nil && i.Name == name {
			return m, nil
		}
		m.Close()
	}
	return nil, fmt.Errorf("%w: no map %s", errNoFilter, name)
}
