package tc

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// twinPrefix makes the name of a program's explain twin.
const twinPrefix = "explain-"

// witness uses every map that XDP and tc share, so that it tells on which ones a generation works.
const witness = "uplink_ingress"

// programName is the name of a role's program in the object, and of its pin.
func programName(role Role, egress bool) string {
	if egress {
		return role.String() + "_egress"
	}
	return role.String() + "_ingress"
}

// generation is one that is pinned. Its key there is its digest and, because its tables hold them, a hash of the
// interfaces as they were. The digest is "" where it must be loaded anew, see isCurrent.
type generation struct {
	*pin.Generation
	digest string
}

// isCurrent says whether a generation is whole and works on the flow tables of today. It is whole with the programs of
// every role among its interfaces.
func isCurrent(shared table.SharedMaps, g *pin.Generation) (bool, error) {
	entries, err := (&generation{Generation: g}).entries()
	if err != nil || g.Programs[witness] == nil {
		return false, err
	}
	for _, entry := range entries {
		for _, egress := range []bool{false, true} {
			name := programName(Role(entry.Role), egress)
			if g.Programs[name] == nil {
				return false, nil
			}
		}
	}
	return shared.UsedBy(g.Programs[witness])
}

// reuse opens a generation that is pinned already: fs.ErrNotExist where there is none that is current.
func reuse(dir *pin.Dir, key string) (*pin.Generation, error) {
	shared, err := table.PinnedShared(dir)
	if err != nil {
		return nil, err
	}
	g, err := dir.LoadGeneration(owner, key)
	if err != nil {
		return nil, err
	}
	current, err := isCurrent(shared, g)
	if err == nil && !current {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// entry is zero for an interface that the generation does not know.
func (g *generation) entry(ifindex int) (abi.Interface, error) {
	var entry abi.Interface
	m := g.Maps[tcMapInterfaces]
	if m == nil {
		return entry, nil
	}
	if err := m.Lookup(uint32(ifindex), &entry); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return entry, fmt.Errorf("map of interfaces: %w", err)
	}
	return entry, nil
}

// entries are all that the generation knows, by interface index.
func (g *generation) entries() (map[int]abi.Interface, error) {
	out := map[int]abi.Interface{}
	var (
		ifindex uint32
		entry   abi.Interface
	)
	if g.Maps[tcMapInterfaces] == nil {
		return out, nil
	}
	all := g.Maps[tcMapInterfaces].Iterate()
	for all.Next(&ifindex, &entry) {
		out[int(ifindex)] = entry
	}
	if err := all.Err(); err != nil {
		return nil, fmt.Errorf("map of interfaces: %w", err)
	}
	return out, nil
}

// generations are all that are pinned, by the ids of their programs. There is one, or two after a crash.
type generations map[ebpf.ProgramID]liveProgram

// liveProgram says whose program one is. generation is nil for one that no pin holds.
type liveProgram struct {
	generation *generation
	name       string
}

func openGenerations(dir *pin.Dir) (generations, error) {
	keys, err := dir.Generations(owner)
	if err != nil {
		return nil, err
	}
	shared, err := table.PinnedShared(dir)
	if err != nil {
		return nil, err
	}
	all := generations{}
	for _, key := range keys {
		pinned, err := dir.LoadGeneration(owner, key)
		if err != nil {
			return nil, errors.Join(err, all.Close())
		}
		digest, _, _ := strings.Cut(key, "-")
		current, err := isCurrent(shared, pinned)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("generation %s: %w", key, err), all.Close(), pinned.Close())
		}
		if !current {
			digest = ""
		}
		g := &generation{pinned, digest}
		for name, p := range pinned.Programs {
			id, err := pin.ProgramID(p)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("generation %s: %w", key, err), all.Close(), g.Close())
			}
			all[id] = liveProgram{g, name}
		}
	}
	return all, nil
}

func (g generations) find(id ebpf.ProgramID) liveProgram { return g[id] }

// Close closes the descriptors.
func (g generations) Close() error {
	var errs []error
	closed := map[*generation]bool{}
	for _, p := range g {
		if !closed[p.generation] {
			closed[p.generation] = true
			errs = append(errs, p.generation.Close())
		}
	}
	return errors.Join(errs...)
}
