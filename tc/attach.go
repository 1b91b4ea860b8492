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

// attachment is where the root of a hook is: zero where there is no link, or its interface has gone.
type attachment struct {
	ifindex int
	current bool // the root is of this version's object, and jumps into the slot that is pinned
}

// rootName is that of this version's roots, of either direction: they differ by their slots.
func rootName() string { return pin.NameOf("root", _RootBytes) }

func attachedTo(dir *pin.Dir, hook pin.Hook) (attachment, error) {
	l, err := dir.Link(hook)
	if errors.Is(err, fs.ErrNotExist) {
		return attachment{}, nil
	}
	if err != nil {
		return attachment{}, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return attachment{}, fmt.Errorf("link of %s: %w", hook, err)
	}
	on := info.TCX()
	if on == nil || on.Ifindex == 0 {
		return attachment{}, nil
	}
	current, err := dir.IsRoot(hook, info.Program, rootName())
	return attachment{int(on.Ifindex), current}, err
}

// attach puts both roots on an interface, at the head of the other tcx programs there, which see what passes; a root of
// another version is exchanged where it is. Egress comes first: what the ingress hook lets in may go out again at once.
func (s *Subsystem) attach(dir *pin.Dir, name string) error {
	device, err := deviceByName(name)
	if err != nil {
		return err
	}
	if s.missing[name] { // its slots are empty, and packets would pass unjudged
		return fmt.Errorf("%w %s when the generation was made: the next one has it", ErrNoInterface, name)
	}
	for _, kind := range []string{egressKind, ingressKind} {
		hook := pin.Hook{Kind: kind, Interface: name}
		was, err := attachedTo(dir, hook)
		if err != nil {
			return err
		}
		if was.ifindex == device.Index && was.current {
			continue
		}
		if err := s.putRoot(dir, hook, device.Index, was); err != nil {
			return err
		}
	}
	s.log.Info("tcx attached", "interface", name)
	return nil
}

// putRoot has a hook hold the root of this version.
func (s *Subsystem) putRoot(dir *pin.Dir, hook pin.Hook, ifindex int, was attachment) error {
	root, err := s.loadRootProgram(dir, hook)
	if err != nil {
		return err
	}
	defer root.Close()
	if was.ifindex == ifindex {
		return dir.ExchangeRoot(hook, root)
	}
	if err := dir.RemoveLink(hook); err != nil {
		return err
	}
	return attachRoot(dir, hook, root, ifindex)
}

func attachRoot(dir *pin.Dir, hook pin.Hook, root *ebpf.Program, ifindex int) error {
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
	spec.Programs[name].Name = rootName()
	delete(spec.Programs, other) // a PROG_ARRAY serves one kind of attachment only (since kernel 6.18)
	root, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{rootMapSlot: slot},
	})
	if err != nil {
		return nil, pin.RootError(hook, table.LoadError(err))
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
