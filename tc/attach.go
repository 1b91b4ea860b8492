package tc

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// deviceByName fails with ErrNoInterface where there is none of that name.
func deviceByName(name string) (*netlink.LinkAttrs, error) {
	device, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, fmt.Errorf("%w %s in this network namespace: create it, or take it out of the file", ErrNoInterface, name)
	}
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return device.Attrs(), nil
}

// attachedTo is the index of the interface that a hook's link holds; 0 where there is no link, or its interface has gone.
func attachedTo(dir *pin.Dir, hook pin.Hook) (ifindex int, err error) {
	l, err := dir.Link(hook)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return 0, fmt.Errorf("link of %s: %w", hook, err)
	}
	if on := info.TCX(); on != nil {
		return int(on.Ifindex), nil
	}
	return 0, nil
}

// attach puts both roots on an interface, at the head of the other tcx programs there, which see what passes. Egress
// comes first: what the ingress hook lets in may go out again at once.
func (s *Subsystem) attach(dir *pin.Dir, name string) error {
	device, err := deviceByName(name)
	if err != nil {
		return err
	}
	for _, kind := range []string{egressKind, ingressKind} {
		hook := pin.Hook{Kind: kind, Interface: name}
		ifindex, err := attachedTo(dir, hook)
		if err != nil {
			return err
		}
		if ifindex == device.Index {
			continue
		}
		if err := dir.RemoveLink(hook); err != nil {
			return err
		}
		if err := s.attachRoot(dir, hook, device.Index); err != nil {
			return err
		}
	}
	s.log.Info("tcx attached", "interface", name)
	return nil
}

func (s *Subsystem) attachRoot(dir *pin.Dir, hook pin.Hook, ifindex int) error {
	root, err := s.loadRootProgram(dir, hook)
	if err != nil {
		return err
	}
	defer root.Close()
	at := ebpf.AttachTCXIngress
	if hook.Kind == egressKind {
		at = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: root, Attach: at, Anchor: link.Head()})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("%s: this kernel has no tcx; it takes 6.6 or newer: %w", hook, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", hook, err)
	}
	defer l.Close()
	return dir.PinLink(hook, l)
}

func (s *Subsystem) loadRootProgram(dir *pin.Dir, hook pin.Hook) (*ebpf.Program, error) {
	slot, err := dir.Slot(hook)
	if err != nil {
		return nil, err
	}
	defer slot.Close()
	spec, err := s.root()
	if err != nil {
		return nil, err
	}
	name, other := rootProgRootIngress, rootProgRootEgress
	if hook.Kind == egressKind {
		name, other = other, name
	}
	delete(spec.Programs, other) // a PROG_ARRAY serves one kind of attachment only (since kernel 6.18)
	root, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{rootMapSlot: slot},
	})
	if err != nil {
		return nil, fmt.Errorf("tcx root: %w", table.LoadError(err))
	}
	defer root.Close()
	return root.DetachProgram(name), nil
}

// detach takes the roots off, and with the last ones every generation.
func (s *Subsystem) detach(dir *pin.Dir, name string) error {
	if err := removeHooks(dir, name); err != nil {
		return err
	}
	s.log.Info("tcx detached", "interface", name)
	names, err := hooked(dir)
	if err != nil || len(names) > 0 {
		return err
	}
	return dir.SweepGenerations(owner)
}

func removeHooks(dir *pin.Dir, name string) error {
	var errs []error
	for _, kind := range kinds {
		errs = append(errs, dir.RemoveHook(pin.Hook{Kind: kind, Interface: name}))
	}
	return errors.Join(errs...)
}
