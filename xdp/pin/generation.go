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
)

// Generation is what one load brought: the programs by name, and the maps that somebody reads later (what the explain
// twin writes, for one). Tables that nobody reads live as long as the programs do, without a pin.
type Generation struct {
	Programs map[string]*ebpf.Program
	Maps     map[string]*ebpf.Map
}

// Close closes the descriptors. Pins and slots keep what they hold.
func (g *Generation) Close() error {
	var errs []error
	for _, p := range g.Programs {
		errs = append(errs, p.Close())
	}
	for _, m := range g.Maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// A staged generation is not complete yet, or not any more. Digests are hexadecimal, so no digest looks like one.
const stagedSuffix = "-staged"

func (d *Dir) genPath(owner, digest string) string {
	return filepath.Join(d.path, gensDir, owner+"-"+digest)
}

// SaveGeneration pins g under its digest, all of it or nothing. One that is there already is replaced.
func (d *Dir) SaveGeneration(owner, digest string, g *Generation) error {
	path := d.genPath(owner, digest)
	staged := path + stagedSuffix
	if err := os.RemoveAll(staged); err != nil {
		return fmt.Errorf("pin generation %s: %w", digest, err)
	}
	if err := g.pinTo(staged); err != nil {
		return errors.Join(fmt.Errorf("pin generation %s: %w", digest, err), os.RemoveAll(staged))
	}
	if err := discard(path, path+"-former"+stagedSuffix); err != nil {
		return fmt.Errorf("pin generation %s: %w", digest, err)
	}
	if err := os.Rename(staged, path); err != nil {
		return fmt.Errorf("pin generation %s: %w", digest, err)
	}
	return nil
}

// discard removes a generation under another name: a crash halfway must not leave what looks whole. None is no error.
func discard(path, staged string) error {
	if err := os.RemoveAll(staged); err != nil {
		return err
	}
	if err := os.Rename(path, staged); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(staged)
}

// pinTo pins clones: an object remembers where it is pinned, and the directory is about to be renamed.
func (g *Generation) pinTo(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, p := range g.Programs {
		clone, err := p.Clone()
		if err != nil {
			return err
		}
		err = clone.Pin(filepath.Join(dir, "prog-"+name))
		if err = errors.Join(err, clone.Close()); err != nil {
			return err
		}
	}
	for name, m := range g.Maps {
		clone, err := m.Clone()
		if err != nil {
			return err
		}
		err = clone.Pin(filepath.Join(dir, "map-"+name))
		if err = errors.Join(err, clone.Close()); err != nil {
			return err
		}
	}
	return nil
}

// RenameGeneration gives a generation that no slot holds another digest; rewrite makes it what that says. Meanwhile it has
// neither, also after a crash, and after an error it is gone.
func (d *Dir) RenameGeneration(owner, digest, to string, rewrite func() error) error {
	path := d.genPath(owner, to)
	staged := path + stagedSuffix
	if err := os.RemoveAll(staged); err != nil {
		return fmt.Errorf("rename generation %s: %w", digest, err)
	}
	if err := os.Rename(d.genPath(owner, digest), staged); err != nil {
		return fmt.Errorf("rename generation %s: %w", digest, err)
	}
	if err := rewrite(); err != nil {
		return errors.Join(err, os.RemoveAll(staged))
	}
	if err := discard(path, path+"-former"+stagedSuffix); err != nil {
		return fmt.Errorf("rename generation %s: %w", digest, err)
	}
	if err := os.Rename(staged, path); err != nil {
		return fmt.Errorf("rename generation %s: %w", digest, err)
	}
	return nil
}

// RemoveGeneration removes the pins of one.
func (d *Dir) RemoveGeneration(owner, digest string) error {
	path := d.genPath(owner, digest)
	if err := discard(path, path+stagedSuffix); err != nil {
		return fmt.Errorf("remove generation %s: %w", digest, err)
	}
	return nil
}

// AddProgram pins one more program with a generation.
func (d *Dir) AddProgram(owner, digest, name string, p *ebpf.Program) error {
	clone, err := p.Clone()
	if err != nil {
		return err
	}
	err = clone.Pin(filepath.Join(d.genPath(owner, digest), "prog-"+name))
	if err = errors.Join(err, clone.Close()); err != nil {
		return fmt.Errorf("pin a program with generation %s: %w", digest, err)
	}
	return nil
}

// LoadGeneration opens a pinned generation: fs.ErrNotExist where there is none of this digest.
func (d *Dir) LoadGeneration(owner, digest string) (*Generation, error) {
	path := d.genPath(owner, digest)
	pins, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("generation %s: %w", digest, err)
	}
	g := &Generation{Programs: map[string]*ebpf.Program{}, Maps: map[string]*ebpf.Map{}}
	for _, pin := range pins {
		if err := g.open(path, pin.Name()); err != nil {
			return nil, errors.Join(fmt.Errorf("generation %s: %w", digest, err), g.Close())
		}
	}
	return g, nil
}

func (g *Generation) open(dir, pin string) error {
	path := filepath.Join(dir, pin)
	if name, ok := strings.CutPrefix(pin, "prog-"); ok {
		p, err := ebpf.LoadPinnedProgram(path, nil)
		if err != nil {
			return err
		}
		g.Programs[name] = p
	} else if name, ok := strings.CutPrefix(pin, "map-"); ok {
		m, err := ebpf.LoadPinnedMap(path, nil)
		if err != nil {
			return err
		}
		g.Maps[name] = m
	}
	return nil
}

// Generations lists the digests of an owner's complete generations, sorted.
func (d *Dir) Generations(owner string) ([]string, error) {
	pins, err := names(filepath.Join(d.path, gensDir))
	if err != nil {
		return nil, err
	}
	var digests []string
	for _, pin := range pins {
		digest, ok := strings.CutPrefix(pin, owner+"-")
		if ok && !strings.HasSuffix(digest, stagedSuffix) {
			digests = append(digests, digest)
		}
	}
	return digests, nil
}

// FindGeneration opens the generation that has a program of this id, and says its digest and the program's name:
// fs.ErrNotExist where none has. It is how the live generation is known again after a restart.
func (d *Dir) FindGeneration(owner string, id ebpf.ProgramID) (g *Generation, digest, program string, err error) {
	digests, err := d.Generations(owner)
	if err != nil {
		return nil, "", "", err
	}
	for _, digest := range digests {
		g, err := d.LoadGeneration(owner, digest)
		if err != nil {
			return nil, "", "", err
		}
		for name, p := range g.Programs {
			if got, err := ProgramID(p); err == nil && got == id {
				return g, digest, name, nil
			}
		}
		g.Close()
	}
	return nil, "", "", fmt.Errorf("generation with program %d: %w", id, fs.ErrNotExist)
}

// Idle lists the digests of an owner's generations that have none of the live programs.
func (d *Dir) Idle(owner string, live map[ebpf.ProgramID]bool) ([]string, error) {
	digests, err := d.Generations(owner)
	if err != nil {
		return nil, err
	}
	var idle []string
	for _, digest := range digests {
		g, err := d.LoadGeneration(owner, digest)
		if err != nil {
			return nil, err
		}
		busy := false
		for _, p := range g.Programs {
			id, err := ProgramID(p)
			if err != nil {
				return nil, errors.Join(err, g.Close())
			}
			busy = busy || live[id]
		}
		if err := g.Close(); err != nil {
			return nil, err
		}
		if !busy {
			idle = append(idle, digest)
		}
	}
	return idle, nil
}

// SweepGenerations removes an owner's generations but those to keep, and what crashes left half made. A program that
// a slot still holds goes on running.
func (d *Dir) SweepGenerations(owner string, keep ...string) error {
	pins, err := names(filepath.Join(d.path, gensDir))
	if err != nil {
		return err
	}
	var errs []error
	for _, pin := range pins {
		digest, ok := strings.CutPrefix(pin, owner+"-")
		if !ok || slices.Contains(keep, digest) {
			continue
		}
		path := filepath.Join(d.path, gensDir, pin)
		if strings.HasSuffix(pin, stagedSuffix) {
			errs = append(errs, os.RemoveAll(path))
		} else {
			errs = append(errs, discard(path, path+stagedSuffix))
		}
	}
	return errors.Join(errs...)
}
