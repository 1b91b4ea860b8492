package xdp

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// ErrNoInterface says that an interface is not there.
var ErrNoInterface = errors.New("no interface")

// xdpAttachedSKB is the kernel's enum value for generic mode in IFLA_XDP_ATTACHED.
const xdpAttachedSKB = 2

// attach puts the root on an interface, replacing one that is there in another mode: a device cannot run native and
// generic XDP at once, so that interface is unfiltered in between. A failure puts the former mode back.
func (s *Subsystem) attach(dir *pin.Dir, want Interface) error {
	device, err := interfaceByName(want.Name)
	if err != nil {
		return err
	}
	hook := pin.Hook{Kind: hookKind, Interface: want.Name}
	maps, err := s.openState()
	if err != nil {
		return err
	}
	defer maps.Close()
	was, err := attachedTo(dir, hook)
	if err != nil {
		return err
	}
	// The entry stands before the root does: its first packet must know its slot and its failure mode.
	if err := maps.setInterface(device.Index, want.FailOpen); err != nil {
		return err
	}
	stays := was.ifindex == device.Index && satisfies(was.mode, want.Mode)
	if stays && was.current {
		return nil
	}
	root, err := s.loadRootProgram(dir, maps, hook)
	if err != nil {
		return err
	}
	defer root.Close()
	if stays {
		return dir.ExchangeRoot(hook, root)
	}
	if err := removeLinks(dir, hook, device.Index); err != nil {
		return err
	}
	err = s.attachRoot(dir, hook, root, device.Index, want.Mode)
	if err != nil && was.mode != "" {
		return errors.Join(err, s.attachRoot(dir, hook, root, device.Index, was.mode))
	}
	if err != nil {
		return errors.Join(err, maps.removeInterface(device.Index))
	}
	return nil
}

// rootName is that of this version's root.
func rootName() string { return pin.NameOf("root", _RootBytes) }

// removeLinks takes off the hook's own link, and that of a former name of the same interface, which would keep it busy.
func removeLinks(dir *pin.Dir, hook pin.Hook, ifindex int) error {
	hooks, err := dir.Hooks(hookKind)
	if err != nil {
		return err
	}
	for _, h := range hooks {
		on, _, err := linkOf(dir, h)
		if err != nil {
			return err
		}
		if h == hook || on == ifindex {
			if err := dir.RemoveLink(h); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Subsystem) loadRootProgram(dir *pin.Dir, maps *stateMaps, hook pin.Hook) (*ebpf.Program, error) {
	slot, err := dir.Slot(hook)
	if err != nil {
		return nil, err
	}
	defer slot.Close()
	spec, err := s.root()
	if err != nil {
		return nil, err
	}
	spec.Programs[rootProgRoot].Name = rootName()
	spec.Maps[rootMapInterfaces].MaxEntries = maps.interfaces.MaxEntries()
	root, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		rootMapSlot: slot, rootMapInterfaces: maps.interfaces, rootMapReasons: maps.reasons,
		rootMapFailsafe: maps.failsafe, rootMapSelfRoot: maps.self,
	}})
	if err != nil {
		return nil, pin.RootError(hook, table.LoadError(err))
	}
	defer root.Close()
	return root.DetachProgram(rootProgRoot), nil
}

// attachRoot attaches in the wanted mode. Under auto it tries native first; a refusal that generic mode would share is
// returned as it is.
func (s *Subsystem) attachRoot(dir *pin.Dir, hook pin.Hook, root *ebpf.Program, ifindex int, mode Mode) error {
	delete(s.reason, hook.Interface)
	if mode != Generic {
		native := attachLink(dir, hook, root, ifindex, link.XDPDriverMode)
		if native == nil {
			s.log.Info("XDP attached in native mode", "interface", hook.Interface)
			return nil
		}
		if mode == Native || occupied(native) || errors.Is(native, unix.ENODEV) {
			return fmt.Errorf("native XDP on %s: %w: %s", hook.Interface, native, advice(native, hook.Interface))
		}
		s.reason[hook.Interface] = fmt.Sprintf("native XDP was refused: %v: %s", native, advice(native, hook.Interface))
		s.log.Warn("XDP falls back to generic mode, which costs several times as much per packet",
			"interface", hook.Interface, "why", s.reason[hook.Interface])
	}
	if err := attachLink(dir, hook, root, ifindex, link.XDPGenericMode); err != nil {
		return fmt.Errorf("generic XDP on %s: %w: %s", hook.Interface, err, advice(err, hook.Interface))
	}
	s.log.Info("XDP attached in generic mode", "interface", hook.Interface)
	return nil
}

func attachLink(dir *pin.Dir, hook pin.Hook, root *ebpf.Program, ifindex int, flags link.XDPAttachFlags) error {
	l, err := link.AttachXDP(link.XDPOptions{Program: root, Interface: ifindex, Flags: flags})
	if err != nil {
		return err
	}
	defer l.Close()
	return dir.PinLink(hook, l)
}

func occupied(err error) bool { return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) }

// advice turns what drivers answer into what to do. They share few errnos for many causes: the usual ones are named.
func advice(err error, name string) string {
	switch {
	case occupied(err):
		return occupant(name)
	case errors.Is(err, unix.EOPNOTSUPP):
		return "its driver has no native XDP, or not in this setup; xdp.mode: generic works everywhere"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		return "usual causes are an MTU that is too large and LRO: try `ethtool -K " + name + " lro off gro-hw off`, or a smaller mtu:"
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EBADRQC):
		return "usual cause is too few queues for one transmit queue per CPU: see `ethtool -l " + name + "`"
	case errors.Is(err, unix.ENODEV):
		return "it has gone in this moment; it is attached when it is back"
	}
	return "the kernel log may say more; xdp.mode: generic is the way around"
}

// occupant says whose program is on an interface.
func occupant(name string) string {
	if device, err := netlink.LinkByName(name); err == nil && device.Attrs().Xdp != nil {
		id := device.Attrs().Xdp.ProgId
		if l := pin.RootLink(ebpf.ProgramID(id)); l != 0 {
			return fmt.Sprintf("Sluice's own XDP program of another run (%d) is on it, and its pins are not in this bpf_dir: that daemon had another --bpf-dir, "+
				"or saw another bpf file system, as `ip netns exec` makes one and nsenter does not; start this one as that one was, "+
				"or take the program off with `bpftool link detach id %d` (sluice doctor names the processes that are left of that run)", id, l)
		}
	}
	return "another XDP program is on it; look with `ip link show " + name + "`, and take it off with its own tool"
}

func (s *Subsystem) setFail(dir *pin.Dir, want Interface) error {
	on, err := attachedTo(dir, pin.Hook{Kind: hookKind, Interface: want.Name})
	if err != nil {
		return err
	}
	if on.ifindex == 0 {
		return fmt.Errorf("the XDP root is not on %s any more", want.Name)
	}
	maps, err := s.openState()
	if err != nil {
		return err
	}
	defer maps.Close()
	return maps.setInterface(on.ifindex, want.FailOpen)
}

// detach takes the root off, and with the last one every generation.
func (s *Subsystem) detach(dir *pin.Dir, name string) error {
	hook := pin.Hook{Kind: hookKind, Interface: name}
	on, err := attachedTo(dir, hook)
	if err != nil {
		return err
	}
	if err := dir.RemoveHook(hook); err != nil {
		return err
	}
	delete(s.reason, name)
	if on.ifindex != 0 {
		maps, err := s.openState()
		if err != nil {
			return err
		}
		defer maps.Close()
		if err := maps.removeInterface(on.ifindex); err != nil {
			return err
		}
	}
	hooks, err := dir.Hooks(hookKind)
	if err != nil || len(hooks) > 0 {
		return err
	}
	return dir.SweepGenerations(owner)
}
