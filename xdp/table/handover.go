package table

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/pin"
)

/*
How entries outlive a change of their maps, be it of the size or of the layout. Programs hold the maps that they were loaded
with, so those of before go on being written until the last slot is switched:

	OpenShared   gives the pins to new maps; those of before stay pinned as formers, or under the name of their version
	TakeOver     copies all entries, right before the first slot is switched
	Settle       copies what was written meanwhile, right after the last one, and removes the pins of the former maps

A pin of a former map says that its entries may not all be where they belong, so after a crash at any point whoever loads
next, or the sweep, goes on from there: entries are merged, and to do so twice changes nothing. XDP only reads flows. It may
stay on a former map, which its program keeps alive, until it is switched itself.
*/

// writers are the kinds of hooks whose programs write flows (package tc).
var writers = []string{"tcx-ingress", "tcx-egress"}

// entry is one of a state map, by the name of its pin.
type entry struct {
	pin        string
	key, value []byte
}

// layout is one version of a group of state maps.
type layout struct {
	version int
	pins    []string // in the order in which they are copied
	// up makes an entry one of the next version; false: it is not kept. Of the last version nil. now is CLOCK_MONOTONIC.
	up func(e entry, now uint64) (entry, bool)
}

// lineage is a group of state maps in all versions of their layout, oldest first.
type lineage struct {
	layouts []layout
	last    func(e entry) uint64 // CLOCK_MONOTONIC when an entry of the last layout was written last, give or take touchGap
	open    func(*pin.Dir) (taker, error)
}

// taker is where entries of the last layout go.
type taker interface {
	take(e entry) error // merges it with what is there already
	Close() error
}

// touchGap is how far behind the time in an entry may be: it is written once a second, and flags beside it more often.
const touchGap = 2 * time.Second

// Handover is a group of entries on its way from former maps. The zero value is one of which nothing is known.
type Handover struct {
	began uint64 // CLOCK_MONOTONIC of the first copy; 0: there was none in this process
}

// TakeOver copies the entries of former flow tables into those that are pinned. A generation that is switched to next finds
// them.
func TakeOver(dir *pin.Dir) (Handover, error) { return flowLineage.takeOver(dir) }

// Settle ends a hand-over once no live program writes former flow tables any more: it copies what was written since TakeOver,
// and removes them. Until then it changes nothing. Where there are none, that is all it looks at.
func (h Handover) Settle(dir *pin.Dir) error { return flowLineage.settle(dir, h) }

func (l lineage) takeOver(dir *pin.Dir) (Handover, error) {
	formers, err := l.formers(dir)
	if err != nil || len(formers) == 0 {
		return Handover{}, err
	}
	defer closeFormers(formers)
	began := monotonic()
	return Handover{began}, l.copy(dir, formers, 0)
}

func (l lineage) settle(dir *pin.Dir, h Handover) error {
	formers, err := l.formers(dir)
	if err != nil || len(formers) == 0 {
		return err
	}
	defer closeFormers(formers)
	if busy, err := anyWritten(dir, formers); err != nil || busy {
		return err
	}
	if err := Quiesce(); err != nil { // the last packet may still be in a program of before
		return err
	}
	since := uint64(0)
	if h.began > uint64(touchGap) {
		since = h.began - uint64(touchGap)
	}
	if err := l.copy(dir, formers, since); err != nil {
		return err
	}
	var errs []error
	for _, f := range formers {
		errs = append(errs, dir.RemoveFormer(f.path))
	}
	return errors.Join(errs...)
}

// former is a map whose entries are to be taken over.
type former struct {
	*ebpf.Map
	path, pin string
	layout    int // index
}

// formers opens them, those of the oldest version first. Of a former version every map is one.
func (l lineage) formers(dir *pin.Dir) ([]former, error) {
	pinned, err := dir.StateMaps() // once: the sweep asks every few seconds, and mostly there is nothing
	if err != nil {
		return nil, err
	}
	var out []former
	for i, version := range l.layouts {
		for _, name := range version.pins {
			paths := pinned.Formers(name, version.version)
			if i < len(l.layouts)-1 && pinned.Has(name, version.version) {
				paths = append(paths, dir.StateMapPath(name, version.version))
			}
			for _, path := range paths {
				m, err := ebpf.LoadPinnedMap(path, nil)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					closeFormers(out)
					return nil, fmt.Errorf("former state map %s: %w", path, err)
				}
				out = append(out, former{m, path, name, i})
			}
		}
	}
	return out, nil
}

func closeFormers(list []former) {
	for _, f := range list {
		f.Close()
	}
}

// anyWritten says whether a slot of a writer holds a program that uses one of the maps.
func anyWritten(dir *pin.Dir, list []former) (bool, error) {
	ids := map[ebpf.MapID]bool{}
	for _, f := range list {
		id, err := idOf(f.Map)
		if err != nil {
			return false, err
		}
		ids[id] = true
	}
	live, err := dir.LivePrograms(writers...)
	if err != nil {
		return false, err
	}
	for id := range live {
		used, err := mapsOf(id)
		if err != nil {
			return false, err
		}
		for _, m := range used {
			if ids[m] {
				return true, nil
			}
		}
	}
	return false, nil
}

func mapsOf(id ebpf.ProgramID) ([]ebpf.MapID, error) {
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // its slot was switched meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, fmt.Errorf("program %d: %w", id, err)
	}
	used, ok := info.MapIDs()
	if !ok {
		return nil, errors.New("the kernel tells no map ids")
	}
	return used, nil
}

// copy takes over what was written at since or later.
func (l lineage) copy(dir *pin.Dir, formers []former, since uint64) error {
	to, err := l.open(dir)
	if err != nil {
		return err
	}
	now := monotonic()
	for _, f := range formers {
		err := Walk(f.Map, func(key, value []byte) error {
			e, keep := l.convert(f.layout, entry{f.pin, key, value}, now)
			if !keep || l.last(e) < since {
				return nil
			}
			return to.take(e)
		})
		if err != nil {
			return errors.Join(fmt.Errorf("take over %s: %w", f.path, err), to.Close())
		}
	}
	return to.Close()
}

// convert brings an entry of the layout of that index to the last one.
func (l lineage) convert(from int, e entry, now uint64) (entry, bool) {
	keep := true
	for i := from; keep && i < len(l.layouts)-1; i++ {
		e, keep = l.layouts[i].up(e, now)
	}
	return e, keep
}

// monotonic is CLOCK_MONOTONIC, which bpf_ktime_get_ns reads as well.
func monotonic() uint64 {
	var ts unix.Timespec
	// Cannot fail: the clock exists since Linux 2.6.0 and ts is ours.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano())
}
