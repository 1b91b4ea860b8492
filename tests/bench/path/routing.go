package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"sluice/tests/bench/lane"
)

// workshop is what all lanes of a run share: compiled programs.
type workshop struct {
	routing *ebpf.CollectionSpec
}

func newWorkshop(ctx context.Context) (*workshop, error) {
	spec, err := lane.Compile(ctx, "tests/bench/path/bpf/routing.c")
	if err != nil {
		return nil, err
	}
	return &workshop{spec}, nil
}

// program loads one of routing.c for a box.
func (w *workshop) program(name string, e *end) (*ebpf.Program, error) {
	spec := w.routing.Copy()
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	var addresses [2]uint32 // as they lie in the packet
	for i, a := range e.addresses {
		raw := a.As4()
		addresses[i] = binary.NativeEndian.Uint32(raw[:])
	}
	if err := errors.Join(spec.Variables["workload"].Set(uint32(e.workIndex)), spec.Variables["addresses"].Set(addresses)); err != nil {
		return nil, err
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	defer c.Close()
	return c.DetachProgram(name), nil
}

// loadRouting puts eBPF host routing into both gateways; the kernel's addresses and routes are what it asks.
func loadRouting(ctx context.Context, w *workshop, s *Site, list []netip.Prefix) (func() error, error) {
	return w.attach(ctx, s, list, func(e *end) ([]link.Link, error) {
		var links []link.Link
		for name, index := range map[string]int{"leave": e.workIndex, "enter": e.uplinkIndex} {
			p, err := w.program(name, e)
			if err != nil {
				return links, err
			}
			l, err := link.AttachTCX(link.TCXOptions{Program: p, Interface: index, Attach: ebpf.AttachTCXIngress})
			if err = errors.Join(err, p.Close()); err != nil {
				return links, err
			}
			links = append(links, l)
		}
		return links, nil
	})
}

// loadPass puts XDP_PASS, in the driver, before plain forwarding.
func loadPass(ctx context.Context, w *workshop, s *Site, list []netip.Prefix) (func() error, error) {
	return w.attach(ctx, s, list, func(e *end) ([]link.Link, error) {
		p, err := w.program("pass", e)
		if err != nil {
			return nil, err
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: e.uplinkIndex, Flags: link.XDPDriverMode})
		return []link.Link{l}, errors.Join(err, p.Close())
	})
}

// attach forwards plainly and attaches programs in both gateways, which last as long as their links.
func (w *workshop) attach(ctx context.Context, s *Site, list []netip.Prefix, attach func(*end) ([]link.Link, error)) (func() error, error) {
	if _, err := loadPlain(ctx, w, s, list); err != nil {
		return nil, err
	}
	var links []link.Link
	closer := func() error {
		var errs []error
		for _, l := range links {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	}
	for _, e := range []*end{&s.A, &s.B} {
		err := e.Box.Do(func() error {
			made, err := attach(e)
			if err == nil {
				links = append(links, made...)
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(err, closer())
		}
	}
	return closer, nil
}
