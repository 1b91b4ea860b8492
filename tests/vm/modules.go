package vm

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is one kernel module, decompressed.
type module struct {
	name string
	data []byte
}

// resolver finds modules and what they depend on, in the order of loading.
type resolver struct {
	paths   map[string]string // module name -> .ko, .ko.xz or .ko.zst
	builtin map[string]bool
	done    map[string]bool
	order   []module
}

// resolveModules returns the named modules and their dependencies, each after what it needs.
func resolveModules(ctx context.Context, dir string, names []string) ([]module, error) {
	r := &resolver{paths: map[string]string{}, builtin: map[string]bool{}, done: map[string]bool{}}
	err := filepath.WalkDir(filepath.Join(dir, "kernel"), func(path string, _ fs.DirEntry, err error) error {
		if name, ok := moduleName(path); ok && err == nil {
			r.paths[name] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		if name, ok := moduleName(strings.TrimSpace(line)); ok {
			r.builtin[name] = true
		}
	}
	for _, name := range names {
		if err := r.add(ctx, strings.ReplaceAll(name, "-", "_")); err != nil {
			return nil, err
		}
	}
	return r.order, nil
}

// moduleName is what the kernel calls the module in path: dashes are underscores to it.
func moduleName(path string) (string, bool) {
	base, _, ok := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(base, "-", "_"), ok
}

func (r *resolver) add(ctx context.Context, name string) error {
	if r.done[name] || r.builtin[name] {
		return nil
	}
	r.done[name] = true
	path, ok := r.paths[name]
	if !ok {
		return fmt.Errorf("this kernel has no module %s", name)
	}
	data, err := readModule(ctx, path)
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	needs, err := dependencies(data)
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	for _, n := range needs {
		if err := r.add(ctx, n); err != nil {
			return fmt.Errorf("%w, which %s needs", err, name)
		}
	}
	r.order = append(r.order, module{name, data})
	return nil
}

func readModule(ctx context.Context, path string) ([]byte, error) {
	tool := map[string]string{".xz": "xz", ".zst": "zstd"}[filepath.Ext(path)]
	if tool == "" {
		return os.ReadFile(path)
	}
	return exec.CommandContext(ctx, tool, "-dc", path).Output()
}

// dependencies reads depends= of .modinfo, a section of NUL-terminated key=value strings.
func dependencies(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if value, ok := bytes.CutPrefix(entry, []byte("depends=")); ok && len(value) > 0 {
			return strings.Split(strings.ReplaceAll(string(value), "-", "_"), ","), nil
		}
	}
	return nil, nil
}
