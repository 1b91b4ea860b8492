package table

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"
)

const constants = ".rodata" // the one map that twins do not share: explain is in it

// Pair is a generation and its explain twin. They share every map but that of the constants.
type Pair struct {
	Maps       map[string]*ebpf.Map
	Live, Twin *ebpf.Collection
}

// LoadPair loads the programs of spec twice, the twins with explain set, and lets fill write the tables: all three side by
// side, for the verifier takes its time and a million prefixes theirs. Maps of replace are used instead of new ones.
func LoadPair(spec *ebpf.CollectionSpec, replace map[string]*ebpf.Map, fill func(map[string]*ebpf.Map) error) (*Pair, error) {
	twin := spec.Copy()
	if err := twin.Variables["explain"].Set(uint8(1)); err != nil {
		return nil, fmt.Errorf("explain twin: %w", err)
	}
	p := &Pair{Maps: map[string]*ebpf.Map{}}
	if err := p.makeMaps(spec, replace); err != nil {
		return nil, errors.Join(LoadError(err), p.Close())
	}
	var group errgroup.Group
	group.Go(func() (err error) {
		p.Live, err = p.programs(spec)
		return err
	})
	group.Go(func() (err error) {
		if p.Twin, err = p.programs(twin); err != nil {
			return fmt.Errorf("explain twin: %w", err)
		}
		return nil
	})
	group.Go(func() error { return fill(p.Maps) })
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Pair) makeMaps(spec *ebpf.CollectionSpec, replace map[string]*ebpf.Map) (err error) {
	for name, m := range spec.Maps {
		if name == constants {
			continue
		}
		if with, ok := replace[name]; ok {
			p.Maps[name], err = with.Clone()
		} else {
			p.Maps[name], err = ebpf.NewMap(m)
		}
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	return nil
}

func (p *Pair) programs(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	c, err := ebpf.NewCollectionWithOptions(spec.Copy(), ebpf.CollectionOptions{MapReplacements: p.Maps})
	if err != nil {
		return nil, LoadError(err)
	}
	return c, nil
}

// Close closes the descriptors of all that was not detached.
func (p *Pair) Close() error {
	for _, c := range []*ebpf.Collection{p.Live, p.Twin} {
		if c != nil {
			c.Close()
		}
	}
	return CloseAll(p.Maps)
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
