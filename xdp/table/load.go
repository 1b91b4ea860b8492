package table

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"sluice/xdp/pin"
)

const (
	constants = ".rodata" // the one map that programs of a generation do not share: explain is in it
	explained = "explained"
)

// Loader brings generations of one object into the kernel. The verifier takes most of that time, and it is asked for the
// sizes of tables and for constants, not for what the tables hold: a generation that no slot holds any more is recast.
type Loader struct {
	Spec   *ebpf.CollectionSpec // sized for the generation that is wanted
	State  map[string]*ebpf.Map // maps that outlive generations: used instead of new ones
	Object Object
	Log    *slog.Logger

	alone bool // all on the calling thread, whose priority is to count
}

// Object is a compiled object, and what is the same for all loads of it.
type Object struct {
	// Spec gives whoever calls it a copy of his own. To parse tc's object took 56 ms on a loaded machine, and to copy it 6.
	Spec func() (*ebpf.CollectionSpec, error)
	// sum names the object among others.
	sum func() string
	// types are the kernel's: without them each program of a load decodes them for itself, 16 to 20 ms. They take 1.5 MB.
	types *btf.Cache
}

// ParseOnce is the object of these bytes. Nothing is done before the first load.
func ParseOnce(object []byte, parse func() (*ebpf.CollectionSpec, error)) Object {
	parsed := sync.OnceValues(parse)
	spec := func() (*ebpf.CollectionSpec, error) {
		spec, err := parsed()
		return spec.Copy(), err // nil stays nil
	}
	sum := sync.OnceValue(func() string {
		sum := sha256.Sum256(object)
		return hex.EncodeToString(sum[:6])
	})
	return Object{spec, sum, btf.NewCache()}
}

// workers run what a load consists of.
type workers interface {
	Go(f func() error)
	Wait() error
}

func (l Loader) workers() workers {
	if l.alone {
		return &inTurn{}
	}
	group := &errgroup.Group{}
	group.SetLimit(runtime.GOMAXPROCS(0) + 1) // fill mostly waits for memory
	return group
}

// inTurn runs one after the other on the calling thread, up to the first error.
type inTurn struct{ err error }

// Go runs f unless one before failed.
func (t *inTurn) Go(f func() error) {
	if t.err == nil {
		t.err = f()
	}
}

// Wait returns the error.
func (t *inTurn) Wait() error { return t.err }

// Load makes the maps of spec with some room to grow and loads the programs, while fill writes the tables: all side by
// side, for the verifier takes its time and a million prefixes theirs. The generation holds every map that it made.
func (l Loader) Load(fill func(map[string]*ebpf.Map) error) (*pin.Generation, error) {
	l.Spec = l.Spec.Copy()
	for name, m := range l.Spec.Maps {
		if l.State[name] == nil && name != constants && name != explained {
			m.MaxEntries = room(m)
		}
	}
	return l.load(fill)
}

// Workloads come one by one, and generations of equal sizes are recast from each other all the while: small maps grow in steps of
// four from leastMap bytes to smallMap. Each step costs two loads, one for each of the generations that are recast in turn.
const (
	leastMap = 64 << 10
	smallMap = 1 << 20
	// hashEntry is about what an entry of a hash or a trie takes beside key and value: struct htab_elem, kernel 6.x.
	hashEntry = 48
)

// room is the size of a map for what may grow: a step of small ones, or by an eighth and a little, and to whole pages, which it has
// anyway.
func room(m *ebpf.MapSpec) uint32 {
	n := m.MaxEntries + m.MaxEntries/8 + 16
	switch m.Type {
	case ebpf.Array:
		n = step(n, uint32(stride(int(m.ValueSize))))
	case ebpf.Hash, ebpf.LPMTrie:
		return step(n, m.KeySize+m.ValueSize+hashEntry)
	default:
		return m.MaxEntries
	}
	if m.Flags&unix.BPF_F_MMAPABLE == 0 {
		return n
	}
	page, size := uint64(os.Getpagesize()), uint64(stride(int(m.ValueSize)))
	return uint32((uint64(n)*size + page - 1) / page * page / size)
}

// step is n, or as many entries of so many bytes as the smallest step holds that n of them fit into.
func step(n, size uint32) uint32 {
	for bytes := uint32(leastMap); bytes <= smallMap; bytes *= 4 {
		if bytes/size >= n {
			return bytes / size
		}
	}
	return n
}

func (l Loader) load(fill func(map[string]*ebpf.Map) error) (*pin.Generation, error) {
	own := map[string]*ebpf.Map{}
	for name, m := range l.Spec.Maps {
		if name == constants || l.State[name] != nil {
			continue
		}
		made, err := ebpf.NewMap(m)
		if err != nil {
			return nil, errors.Join(LoadError(fmt.Errorf("map %s: %w", name, err)), CloseAll(own))
		}
		own[name] = made
	}
	g := &pin.Generation{Programs: map[string]*ebpf.Program{}, Maps: own}
	all := maps.Clone(own)
	maps.Copy(all, l.State)
	var mu sync.Mutex
	group := l.workers()
	group.Go(func() error { return fill(own) })
	for name := range l.Spec.Programs {
		group.Go(func() error {
			program, values, err := l.program(name, all)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			g.Programs[name] = program
			if g.Maps[l.constantsPin()] != nil { // equal in all of them
				return values.Close()
			}
			g.Maps[l.constantsPin()] = values
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// program loads one program, and returns the map of its constants as well.
func (l Loader) program(name string, with map[string]*ebpf.Map) (*ebpf.Program, *ebpf.Map, error) {
	spec := l.Spec.Copy()
	maps.DeleteFunc(spec.Programs, func(n string, _ *ebpf.ProgramSpec) bool { return n != name })
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: with, Cache: l.Object.types})
	if err != nil {
		return nil, nil, LoadError(err)
	}
	defer c.Close()
	return c.DetachProgram(name), c.DetachMap(constants), nil
}

// constantsPin names the map of constants among those of a generation, and the object that it is of.
func (l Loader) constantsPin() string { return "constants-" + l.Object.sum() }

// Fits says why g, once its tables are rewritten, cannot be the generation that is wanted; "": it can. It is of the same
// object with the same constants then, works on the same state, and its maps are large enough.
func (l Loader) Fits(g *pin.Generation) (why string, err error) {
	values := g.Maps[l.constantsPin()]
	if values == nil {
		return "another version's object", nil
	}
	have, err := values.LookupBytes(uint32(0))
	if err != nil {
		return "", fmt.Errorf("constants of a generation: %w", err)
	}
	if want, err := l.constants(); err != nil || !bytes.Equal(have, want) {
		return "other constants", err
	}
	known := map[ebpf.MapID]bool{}
	for name, m := range l.Spec.Maps {
		on := l.State[name]
		if own := g.Maps[name]; on == nil && name != constants {
			switch {
			case own == nil:
				return "no map " + name, nil
			case own.MaxEntries() < m.MaxEntries:
				return fmt.Sprintf("room for %d in %s, not for %d", own.MaxEntries(), name, m.MaxEntries), nil
			case wasteful(own, m):
				return fmt.Sprintf("room for %d in %s, for %d", own.MaxEntries(), name, m.MaxEntries), nil
			}
			on = own
		}
		if on == nil {
			continue
		}
		id, err := idOf(on)
		if err != nil {
			return "", err
		}
		known[id] = true
	}
	for name := range l.Spec.Programs {
		if g.Programs[name] == nil {
			return "no program " + name, nil
		}
	}
	for name, p := range g.Programs {
		if ok, err := usesOnly(p, known); err != nil || !ok {
			return name + " works on maps that were replaced", err
		}
	}
	return "", nil
}

// wasteful says whether a map is so much larger than needed that its memory is worth another generation.
func wasteful(have *ebpf.Map, want *ebpf.MapSpec) bool {
	const small = 1 << 20 // bytes
	return have.MaxEntries()/4 > room(want) && uint64(have.MaxEntries())*uint64(have.ValueSize()) > small
}

// usesOnly says whether all maps of a program are known, but for its constants.
func usesOnly(p *ebpf.Program, known map[ebpf.MapID]bool) (bool, error) {
	info, err := p.Info()
	if err != nil {
		return false, err
	}
	used, _ := info.MapIDs()
	unknown := 0
	for _, id := range used {
		if !known[id] {
			unknown++
		}
	}
	return unknown <= 1, nil
}

func idOf(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, fmt.Errorf("map %s: %w", m, err)
	}
	id, _ := info.ID()
	return id, nil
}

// constants are the bytes that the programs of spec would be loaded with.
func (l Loader) constants() ([]byte, error) {
	m, ok := l.Spec.Maps[constants]
	if !ok || len(m.Contents) != 1 {
		return nil, missing(constants)
	}
	section, ok := m.Contents[0].Value.([]byte)
	if !ok {
		return nil, missing(constants)
	}
	section = slices.Clone(section)
	for _, v := range l.Spec.Variables {
		if v.SectionName == constants {
			copy(section[v.Offset:], v.Value)
		}
	}
	return section, nil
}

// Like brings the spec to the programs, sizes and constants of a generation of the same object.
func (l Loader) Like(g *pin.Generation) error {
	values := g.Maps[l.constantsPin()]
	if values == nil {
		return errors.New("the generation is of another version's object")
	}
	section, err := values.LookupBytes(uint32(0))
	if err != nil {
		return fmt.Errorf("constants of a generation: %w", err)
	}
	for _, v := range l.Spec.Variables {
		if v.SectionName == constants {
			v.Value = slices.Clone(section[v.Offset : v.Offset+v.Size()])
		}
	}
	maps.DeleteFunc(l.Spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return g.Programs[name] == nil })
	for name, m := range l.Spec.Maps {
		if own := g.Maps[name]; own != nil {
			m.MaxEntries = own.MaxEntries()
		}
		if state := l.State[name]; state != nil {
			m.MaxEntries, m.Flags = state.MaxEntries(), state.Flags()
		}
	}
	return nil
}

// Twin loads the explain twin of one program of a generation: it shares every map but that of the constants.
func (l Loader) Twin(g *pin.Generation, program string) (*ebpf.Program, error) {
	if err := l.Like(g); err != nil {
		return nil, fmt.Errorf("explain twin: %w", err)
	}
	if err := l.Spec.Variables["explain"].Set(uint8(1)); err != nil {
		return nil, fmt.Errorf("explain twin: %w", err)
	}
	all := maps.Clone(l.State)
	for name := range l.Spec.Maps {
		if own := g.Maps[name]; own != nil {
			all[name] = own
		}
	}
	twin, values, err := l.program(program, all)
	if err != nil {
		return nil, fmt.Errorf("explain twin: %w", err)
	}
	return twin, values.Close()
}

// LoadError says what a refusal by the kernel most likely means. The verifier's log is in the error's %+v form.
func LoadError(err error) error {
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		return fmt.Errorf("the kernel's verifier refuses the program (is the kernel older than 6.6? `sluice doctor` tells): %w", err)
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("this kernel lacks a feature that the programs need (`sluice doctor` tells which): %w", err)
	}
	return err
}
