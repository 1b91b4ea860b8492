package pin

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The roots of one version are exchanged for another's while packets pass: Load switches the slots, then each hook's link gets
// the root of the binary that runs, between two packets. So for a moment a root jumps into a generation of another version,
// whichever is the older one, and roots of two versions stand on two hooks. They must agree upon
//
//   - the slot: index 0 of a PROG_ARRAY of one entry. The kernel holds a slot to the program type, and to the xdp.frags, of what
//     first used it, and refuses to load other roots (see RootError);
//   - the layouts of the maps that a root shares with generations, which their pins' versions say;
//   - marks: a bit that a root takes off (MARK_PASSED) is one that a generation of another version asks for itself, or never sets.
//     A root that takes a bit which is no mark of ours any more lets the packets of strangers pass: that is why it goes.
//
// A downgrade is the same in reverse. A binary from before tcx roots were exchanged leaves a newer one where it is; its own
// generations ask for their marks themselves.

// NameOf tells versions of a program that stays attached apart once they are in the kernel, which keeps 15 bytes of a name:
// kind, of at most 6, and what follows from the compiled object that holds the program.
func NameOf(kind string, object []byte) string {
	sum := sha256.Sum256(object)
	return kind + "_" + hex.EncodeToString(sum[:4])
}

// IsRoot says whether a program is the root of that name, and jumps into the hook's slot. It does not where the slot's pin was
// removed by hand, and made again.
func (d *Dir) IsRoot(h Hook, id ebpf.ProgramID, name string) (bool, error) {
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it was exchanged in this moment
	}
	if err != nil {
		return false, fmt.Errorf("root of %s, program %d: %w", h, id, err)
	}
	defer p.Close()
	var info programInfo
	if err := infoOf(p, &info); err != nil {
		return false, fmt.Errorf("root of %s, program %d: %w", h, id, err)
	}
	if unix.ByteSliceToString(info.name[:]) != name {
		return false, nil
	}
	slot, err := ebpf.LoadPinnedMap(d.slotPath(h), &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("slot of %s: %w", h, err)
	}
	defer slot.Close()
	of, err := slot.Info()
	if err != nil {
		return false, fmt.Errorf("slot of %s: %w", h, err)
	}
	used, err := ProgramMaps(p)
	slotID, ok := of.ID()
	return ok && slices.Contains(used, slotID), err
}

// RootError says what is behind the kernel's refusal to load a root of the hook. Of a slot that fits no more it says no more
// than EINVAL.
func RootError(h Hook, err error) error {
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("root of %s: %w: where another version of sluice made its slot, this one's program may not fit: run that one, or `sluice down` and then this one",
			h, err)
	}
	return fmt.Errorf("root of %s: %w", h, err)
}

// ExchangeRoot puts root in the place of the one that the hook's link holds, between two packets. The link keeps its place among
// others of the interface.
func (d *Dir) ExchangeRoot(h Hook, root *ebpf.Program) error {
	l, err := d.Link(h)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Update(root); err != nil {
		return fmt.Errorf("exchange the root of %s: %w", h, err)
	}
	return nil
}
