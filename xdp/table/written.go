package table

import (
	"fmt"
	"runtime"
	"sync"
	"weak"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"sluice/xdp/classify"
)

// Written remembers which arrays of Tables are in which maps, so that Fill need not compare them: the tables of a change
// share with those before what they have in common, and never change. It keeps no array alive. The zero value knows
// nothing; it is safe for concurrent use. Nobody else may write into the maps.
type Written struct {
	mu sync.Mutex
	in map[ebpf.MapID]array
}

// array is one by its memory. A weak pointer never equals one to what came to lie there later.
type array struct {
	at     weak.Pointer[byte]
	length int // bytes
}

// maxWritten maps are remembered: those of many generations. What is forgotten is compared again.
const maxWritten = 256

func arrayOf(c content) array {
	if len(c.bytes) == 0 {
		return array{}
	}
	return array{weak.Make(&c.bytes[0]), len(c.bytes)}
}

// Fill is the function Fill, at the cost of what differs from what the maps are known to hold.
func (w *Written) Fill(maps map[string]*ebpf.Map, t *classify.Tables) error {
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, c := range contents(t) {
		group.Go(func() error {
			m, ok := maps[c.name]
			if !ok {
				return missing(c.name)
			}
			if err := w.fill(m, c); err != nil {
				return fmt.Errorf("map %s: %w", c.name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return FillArray(maps, Policies, t.Policies)
}

func (w *Written) fill(m *ebpf.Map, c content) error {
	id, err := idOf(m)
	if err != nil {
		return err
	}
	is := arrayOf(c)
	if w.holds(id, is) {
		return nil
	}
	if err := c.copyTo(m); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.in == nil || len(w.in) >= maxWritten {
		w.in = map[ebpf.MapID]array{}
	}
	w.in[id] = is
	return nil
}

// holds says whether a map is known to hold an array. What it holds if not is unknown from now on.
func (w *Written) holds(id ebpf.MapID, is array) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, known := w.in[id]
	if known && was == is {
		return true
	}
	delete(w.in, id)
	return false
}
