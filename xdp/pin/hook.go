package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Hook is one place a root is attached to. Kind is a directory name such as "xdp", "tcx-ingress" or "tcx-egress".
type Hook struct{ Kind, Interface string }

// String is what an operator reads: "xdp on eth0".
func (h Hook) String() string { return h.Kind + " on " + h.Interface }

func (d *Dir) linkPath(h Hook) string {
	return filepath.Join(d.path, linksDir, h.Kind, encode(h.Interface))
}

func (d *Dir) slotPath(h Hook) string {
	return filepath.Join(d.path, slotsDir, h.Kind, encode(h.Interface))
}

// Link opens the pinned link of a hook: fs.ErrNotExist where there is none. The caller closes it; the pin stays.
func (d *Dir) Link(h Hook) (link.Link, error) {
	l, err := link.LoadPinnedLink(d.linkPath(h), nil)
	if err != nil {
		return nil, fmt.Errorf("link of %s: %w", h, err)
	}
	return l, nil
}

// PinLink keeps l alive. Where another link is pinned for this hook, remove it first.
func (d *Dir) PinLink(h Hook, l link.Link) error {
	if err := os.MkdirAll(filepath.Dir(d.linkPath(h)), 0o700); err != nil {
		return fmt.Errorf("pin the link of %s: %w", h, err)
	}
	if err := l.Pin(d.linkPath(h)); err != nil {
		return fmt.Errorf("pin the link of %s: %w", h, err)
	}
	return nil
}

// RemoveLink detaches the hook's link, at once and whoever else holds it open, and removes its pin. A link whose
// interface has gone, or that is not there, is no error.
func (d *Dir) RemoveLink(h Hook) error {
	l, err := d.Link(h)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Close()
	// Unpinning and closing would do the same, but only when the last descriptor goes. A link without its interface
	// answers with an error that means nothing here.
	detached := l.Detach()
	if err := removePin(d.linkPath(h)); err != nil {
		return fmt.Errorf("unpin the link of %s: %w", h, err)
	}
	if info, err := l.Info(); detached != nil && err == nil && attached(info) {
		return fmt.Errorf("detach %s: %w", h, detached)
	}
	return nil
}

// attached says whether a link still has its interface.
func attached(info *link.Info) bool {
	if xdp := info.XDP(); xdp != nil {
		return xdp.Ifindex != 0
	}
	if tcx := info.TCX(); tcx != nil {
		return tcx.Ifindex != 0
	}
	return true
}

// Slot opens the slot of a hook, and makes it, empty, where there is none. A PROG_ARRAY forgets its programs when the
// last descriptor and pin are gone, which is why it is pinned before anybody fills it.
func (d *Dir) Slot(h Hook) (*ebpf.Map, error) {
	path := d.slotPath(h)
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err == nil {
		return requireSlot(h, m)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("slot of %s: %w", h, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("slot of %s: %w", h, err)
	}
	m, err = ebpf.NewMap(&ebpf.MapSpec{Name: "slot", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make the slot of %s: %w", h, err)
	}
	if err := m.Pin(path); err != nil {
		m.Close()
		return nil, fmt.Errorf("pin the slot of %s: %w", h, err)
	}
	return m, nil
}

// requireSlot closes a map that no root of this version can jump into.
func requireSlot(h Hook, m *ebpf.Map) (*ebpf.Map, error) {
	if m.Type() == ebpf.ProgramArray && m.MaxEntries() == 1 {
		return m, nil
	}
	defer m.Close()
	return nil, fmt.Errorf("slot of %s: the pin is a %v of %d entries, which another version of sluice made: run that one, or `sluice down` and then this one",
		h, m.Type(), m.MaxEntries())
}

// Switch makes prog the hook's live program by one slot update: a packet meets the program before or this one.
func (d *Dir) Switch(h Hook, prog *ebpf.Program) error {
	slot, err := d.Slot(h)
	if err != nil {
		return err
	}
	defer slot.Close()
	if err := slot.Put(uint32(0), prog); err != nil {
		return fmt.Errorf("switch %s to the new generation: %w", h, err)
	}
	return nil
}

// Live is the id of the program in a hook's slot; 0 where the slot is empty or missing.
func (d *Dir) Live(h Hook) (ebpf.ProgramID, error) {
	slot, err := ebpf.LoadPinnedMap(d.slotPath(h), &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("slot of %s: %w", h, err)
	}
	defer slot.Close()
	var id uint32
	err = slot.Lookup(uint32(0), &id)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("slot of %s: %w", h, err)
	}
	return ebpf.ProgramID(id), nil
}

// LivePrograms are the ids of the programs in all slots of these kinds.
func (d *Dir) LivePrograms(kinds ...string) (map[ebpf.ProgramID]bool, error) {
	live := map[ebpf.ProgramID]bool{}
	for _, kind := range kinds {
		hooks, err := d.Hooks(kind)
		if err != nil {
			return nil, err
		}
		for _, h := range hooks {
			id, err := d.Live(h)
			if err != nil {
				return nil, err
			}
			if id != 0 {
				live[id] = true
			}
		}
	}
	return live, nil
}

// RemoveHook detaches the hook's link and removes its pins.
func (d *Dir) RemoveHook(h Hook) error {
	if err := d.RemoveLink(h); err != nil {
		return err
	}
	if err := removePin(d.slotPath(h)); err != nil {
		return fmt.Errorf("unpin the slot of %s: %w", h, err)
	}
	for _, room := range []string{linksDir, slotsDir} {
		_ = os.Remove(filepath.Join(d.path, room, h.Kind)) // only where it was the last of its kind
	}
	return nil
}

// Hooks lists the hooks of a kind (of every kind: "") that have a link or a slot, sorted.
func (d *Dir) Hooks(kind string) ([]Hook, error) {
	var hooks []Hook
	for _, room := range []string{linksDir, slotsDir} {
		kinds := []string{kind}
		if kind == "" {
			var err error
			if kinds, err = names(filepath.Join(d.path, room)); err != nil {
				return nil, err
			}
		}
		for _, k := range kinds {
			pins, err := names(filepath.Join(d.path, room, k))
			if err != nil {
				return nil, err
			}
			for _, p := range pins {
				hooks = append(hooks, Hook{Kind: k, Interface: decode(p)})
			}
		}
	}
	slices.SortFunc(hooks, func(a, b Hook) int {
		return strings.Compare(a.Kind+"/"+a.Interface, b.Kind+"/"+b.Interface)
	})
	return slices.Compact(hooks), nil
}

// bpffs refuses a dot in a name, and eth0.100 has one: "_" escapes both itself and the dot.
var (
	encoder = strings.NewReplacer("_", "__", ".", "_d")
	decoder = strings.NewReplacer("__", "_", "_d", ".")
)

func encode(name string) string { return encoder.Replace(name) }
func decode(pin string) string  { return decoder.Replace(pin) }
