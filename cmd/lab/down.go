package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Down removes labs below dir ("" is DefaultDir) that nobody takes care of: those that were left up, and those whose
// process died before it could clean up. No ids are all of them. It returns a line for each, which says what became of it.
func Down(dir string, ids ...string) (said []string, err error) {
	if dir == "" {
		dir = DefaultDir
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || len(ids) > 0 && !slices.Contains(ids, e.Name()) {
			continue
		}
		line, err := down(e.Name(), dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		said = append(said, line)
	}
	return said, errors.Join(errs...)
}

func down(id, dir string) (string, error) {
	var r record
	// Without a record it died before it had anything, or while it was being removed.
	if err := readJSON(filepath.Join(dir, id, recordFile), &r); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if r.Owner != nil && r.Owner.alive() {
		return fmt.Sprintf("lab %s is at work: it goes when process %d ends", id, r.Owner.PID), nil
	}
	processes, err := filepath.Glob(filepath.Join(dir, id, "*.process"))
	if err != nil {
		return "", err
	}
	for _, path := range processes {
		var p identity
		if err := readJSON(path, &p); err != nil {
			return "", err
		}
		if err := p.kill(); err != nil {
			return "", err
		}
	}
	if err := remove(id, dir); err != nil {
		return "", err
	}
	return fmt.Sprintf("lab %s is gone", id), nil
}

// sweep removes the labs below dir whose owner died before it could. Those that were left up stay, and so do those without a
// record: they may be on their way up.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		var r record
		err := readJSON(filepath.Join(dir, e.Name(), recordFile), &r)
		if err == nil && r.Owner != nil && !r.Owner.alive() {
			_, err = down(e.Name(), dir)
		}
		if !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
