package table

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/pin"
)

// spareDigest is what a generation is pinned as that was never live: no digest, so nobody takes it for one.
const spareDigest = "spare"

// Site is where generations of one owner are: their pins, and the hooks whose slots hold them.
type Site struct {
	Dir   *pin.Dir
	Owner string
	Kinds []string
}

// Recast writes the tables of the wanted generation into one that no slot holds, under its new digest. It returns nil
// where none fits; those that no slot holds are removed then, so that there are never more than two of large tables.
// live are the programs in slots.
func (l Loader) Recast(at Site, digest string, live map[ebpf.ProgramID]bool, fill func(map[string]*ebpf.Map) error) (*pin.Generation, error) {
	idle, err := at.Dir.Idle(at.Owner, live)
	if err != nil {
		return nil, err
	}
	for _, former := range idle {
		g, err := at.Dir.LoadGeneration(at.Owner, former)
		if err != nil {
			return nil, err
		}
		why, err := l.Fits(g)
		l.Log.Debug("recast", "owner", at.Owner, "generation", former, "not", why)
		if err == nil && why == "" {
			err = at.Dir.RenameGeneration(at.Owner, former, digest, func() error {
				if err := Quiesce(); err != nil { // the last packet may still be in it
					return err
				}
				return fill(g.Maps)
			})
			if err == nil {
				return g, nil
			}
		}
		if err = errors.Join(err, g.Close()); err != nil {
			return nil, err
		}
	}
	return nil, at.remove(idle)
}

func (at Site) remove(digests []string) error {
	var errs []error
	for _, digest := range digests {
		errs = append(errs, at.Dir.RemoveGeneration(at.Owner, digest))
	}
	return errors.Join(errs...)
}

// Sweep removes an owner's generations after a switch but for the one of digest, and one to go back to and to recast: the
// one that was live before, where there is.
func (at Site) Sweep(digest string, before map[ebpf.ProgramID]bool) error {
	all, err := at.Dir.Generations(at.Owner)
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(all, func(d string) bool { return d == digest })
	stale, err := at.Dir.Idle(at.Owner, before)
	if err != nil {
		return err
	}
	keep := []string{digest}
	if i := slices.IndexFunc(others, func(d string) bool { return !slices.Contains(stale, d) }); i >= 0 {
		keep = append(keep, others[i])
	} else if len(others) > 0 {
		keep = append(keep, others[0])
	}
	return at.Dir.SweepGenerations(at.Owner, keep...)
}

// Quiesce waits until every program that runs now has ended. The kernel does so after each update of a map of maps, since
// 4.20 and for this very purpose (an RCU grace period).
func Quiesce() error {
	inner := &ebpf.MapSpec{Name: "quiesce", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{Name: "quiesce", Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: inner})
	if err != nil {
		return fmt.Errorf("wait for running programs: %w", err)
	}
	defer outer.Close()
	element, err := ebpf.NewMap(inner)
	if err != nil {
		return fmt.Errorf("wait for running programs: %w", err)
	}
	defer element.Close()
	if err := outer.Put(uint32(0), element); err != nil {
		return fmt.Errorf("wait for running programs: %w", err)
	}
	return nil
}

// Spares keeps a generation ready for Recast, so that a change does not wait for the verifier.
type Spares struct {
	wanted chan struct{}
}

// NewSpares makes one that waits for Wanted.
func NewSpares() *Spares { return &Spares{make(chan struct{}, 1)} }

// Wanted has Keep make one, unless it is there.
func (s *Spares) Wanted() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// Keep calls spare whenever one is wanted, until ctx ends. Where that fails the next change takes longer, no more.
func (s *Spares) Keep(ctx context.Context, log *slog.Logger, spare func() error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wanted:
		}
		done := make(chan error, 1)
		go func() {
			// Never unlocked: the thread ends with the goroutine, and its priority with it.
			runtime.LockOSThread()
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
			done <- spare()
		}()
		if err := <-done; err != nil {
			log.Warn("no spare generation: the next change takes longer", "error", err)
		}
	}
}

// MakeSpare loads a spare like the live generation, unless another one can be recast already. mu is held while pins are
// looked at and written, and not while the verifier works. open returns a loader of the object and what closes it.
func (at Site) MakeSpare(mu sync.Locker, open func(*pin.Dir) (Loader, func() error, error)) (err error) {
	mu.Lock()
	defer mu.Unlock()
	live, err := at.live()
	if err != nil || live == "" {
		return err
	}
	g, err := at.Dir.LoadGeneration(at.Owner, live)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	loader, done, err := open(at.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := loader.Like(g); err != nil {
		return err
	}
	if why, err := loader.Fits(g); err != nil || why != "" {
		return err // its state was replaced: it is about to be loaded anew
	}
	if ready, err := at.clear(loader, live); err != nil || ready {
		return err
	}
	mu.Unlock()
	loader.alone = true // Keep made the thread wait for others
	spare, err := loader.load(func(map[string]*ebpf.Map) error { return nil })
	mu.Lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spare.Close()) }()
	if now, err := at.Dir.Generations(at.Owner); err != nil || !slices.Equal(now, []string{live}) {
		return err // meanwhile another change was faster
	}
	return at.Dir.SaveGeneration(at.Owner, spareDigest, spare)
}

// live is the digest of the generation that the slots hold; "" where it is not one and the same.
func (at Site) live() (string, error) {
	programs, err := at.Dir.LivePrograms(at.Kinds...)
	if err != nil {
		return "", err
	}
	all, err := at.Dir.Generations(at.Owner)
	if err != nil {
		return "", err
	}
	idle, err := at.Dir.Idle(at.Owner, programs)
	if err != nil || len(all) != len(idle)+1 {
		return "", err
	}
	return slices.DeleteFunc(all, func(d string) bool { return slices.Contains(idle, d) })[0], nil
}

// clear removes what cannot be recast into one like the live generation, and what a crash left half made: a third one of large
// tables. ready says that one is left.
func (at Site) clear(l Loader, live string) (ready bool, err error) {
	all, err := at.Dir.Generations(at.Owner)
	if err != nil {
		return false, err
	}
	if err := at.Dir.SweepGenerations(at.Owner, all...); err != nil {
		return false, err
	}
	for _, digest := range all {
		if digest == live {
			continue
		}
		g, err := at.Dir.LoadGeneration(at.Owner, digest)
		if err != nil {
			return false, err
		}
		why, err := l.Fits(g)
		if err = errors.Join(err, g.Close()); err != nil {
			return false, err
		}
		if ready = ready || why == ""; why != "" {
			err = at.Dir.RemoveGeneration(at.Owner, digest)
		}
		if err != nil {
			return false, err
		}
	}
	return ready, nil
}
