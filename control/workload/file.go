package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sluice/control/disk"
)

// schema of the file; a file of another one is not understood. disk.Format grows with it.
const schema = 1

type contents struct {
	Schema    int    `json:"schema"`
	Workloads []Spec `json:"workloads"`
}

// Load reads what was kept. A damaged file is set aside, so that it is written anew by the next change: what was in it is
// named in the log and has to be added again.
func (l *List) Load() error {
	data, err := os.ReadFile(l.opts.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("workloads of the API: %w", err)
	}
	var c contents
	err = json.Unmarshal(data, &c)
	if err == nil && c.Schema != schema {
		err = fmt.Errorf("schema %d; this version reads %d", c.Schema, schema)
	}
	specs := map[string]*Spec{}
	for _, s := range c.Workloads {
		if s.Name == "" || specs[s.Name] != nil {
			err = errors.Join(err, fmt.Errorf("the name %q is empty or there twice", s.Name))
		}
		s = s.normal()
		specs[s.Name] = &s
	}
	if err != nil {
		aside := l.opts.Path + ".damaged"
		l.opts.Faults.Damaged(filepath.Base(l.opts.Path), fmt.Sprintf("workloads of the API are to be added again; what is left of it is %s: %v", aside, err))
		return errors.Join(fmt.Errorf("workloads of the API: %s cannot be read, and is now %s: add them again: %w", l.opts.Path, aside, err),
			os.Rename(l.opts.Path, aside))
	}
	l.set(specs)
	return nil
}

func (l *List) save() error {
	data, err := json.MarshalIndent(contents{schema, l.All()}, "", " ")
	if err != nil {
		return err
	}
	if err := disk.Replace(l.opts.Path, append(data, '\n')); err != nil {
		return fmt.Errorf("workloads of the API: %w", err)
	}
	l.opts.Faults.Wrote(filepath.Base(l.opts.Path), nil)
	return nil
}
