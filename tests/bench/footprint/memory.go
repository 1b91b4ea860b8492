package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"sluice/tests/bench/node"
)

// Resident is the memory of a process in bytes, see /proc/PID/smaps_rollup in proc(5).
type Resident struct {
	RSS, PSS  int64
	Anonymous int64 // heap and stacks; the rest is its own file, which the kernel can read again
	Peak      int64 // of RSS since the process began
}

func residentOf(pid int) (Resident, error) {
	var r Resident
	rollup, err := fields(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return r, err
	}
	status, err := fields(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return r, err
	}
	return Resident{RSS: rollup["Rss"], PSS: rollup["Pss"], Anonymous: rollup["Anonymous"], Peak: status["VmHWM"]}, nil
}

// fields reads lines of "Name: N kB" into bytes.
func fields(path string) (map[string]int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		if words := strings.Fields(rest); len(words) == 2 && words[1] == "kB" {
			n, err := strconv.ParseInt(words[0], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			out[name] = n << 10
		}
	}
	return out, nil
}

// kernelMemory is what the kernel has taken and cannot give back: slabs, large areas, per-CPU areas. The whole machine's,
// so its growth means something only where what grows is large.
func kernelMemory() (int64, error) {
	m, err := fields("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	if m["SUnreclaim"] == 0 || m["VmallocUsed"] == 0 {
		return 0, errors.New("/proc/meminfo shows no kernel memory")
	}
	return m["SUnreclaim"] + m["VmallocUsed"] + m["Percpu"], nil
}

// steadyKernelMemory is kernelMemory once what was closed before is gone: the kernel frees maps and namespaces later. On a
// busy machine it never is steady, and the last look has to do.
func steadyKernelMemory(ctx context.Context) (last int64, err error) {
	const noise = 1 << 20
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = node.Poll(ctx, 500*time.Millisecond, func() error {
		now, err := kernelMemory()
		moved := now - last
		last = now
		if err == nil && (moved > noise || -moved > noise) {
			err = errMoving
		}
		return err
	})
	if errors.Is(err, errMoving) {
		err = nil
	}
	return last, err
}

var errMoving = errors.New("the kernel's memory still changes")

// Maps are the bytes of BPF maps, as the kernel accounts them.
type Maps struct {
	Tables int64 // of generations: what the file says
	State  int64 // pinned beside them: flows, counters, bans, rings
	Count  int
}

// mapsOf finds the maps of a daemon: those that it pins, those of programs that it pins, and those that it holds open (a
// spare generation is not pinned).
func mapsOf(pid int, dir string) (Maps, error) {
	var m Maps
	seen := map[ebpf.MapID]bool{}
	add := func(id ebpf.MapID, to *int64) error {
		if seen[id] {
			return nil
		}
		seen[id] = true
		bytes, err := mapBytes(id)
		if errors.Is(err, os.ErrNotExist) {
			return nil // closed meanwhile
		}
		*to += bytes
		m.Count++
		return err
	}
	// State first: programs of generations use it as well.
	for _, room := range []struct {
		name string
		to   *int64
	}{{"maps", &m.State}, {"sockets", &m.State}, {"links", &m.State}, {"slots", &m.State}, {"gen", &m.Tables}} {
		if err := mapsUnder(filepath.Join(dir, room.name), func(id ebpf.MapID) error { return add(id, room.to) }); err != nil {
			return m, err
		}
	}
	held, err := mapsHeld(pid)
	for _, id := range held {
		err = errors.Join(err, add(id, &m.Tables))
	}
	return m, err
}

// mapsUnder visits the maps that are pinned below a folder, and those of programs that are.
func mapsUnder(dir string, visit func(ebpf.MapID) error) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		if m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true}); err == nil {
			defer m.Close()
			info, err := m.Info()
			if err != nil {
				return err
			}
			id, _ := info.ID()
			return visit(id)
		}
		p, err := ebpf.LoadPinnedProgram(path, nil)
		if err != nil {
			return nil // a link
		}
		defer p.Close()
		info, err := p.Info()
		if err != nil {
			return err
		}
		ids, _ := info.MapIDs()
		for _, id := range ids {
			if err := visit(id); err != nil {
				return err
			}
		}
		return nil
	})
}

// mapsHeld are the maps that a process has descriptors of.
func mapsHeld(pid int) (ids []ebpf.MapID, err error) {
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return nil, err
	}
	for _, name := range infos {
		data, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			if text, ok := strings.CutPrefix(line, "map_id:"); ok {
				id, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				ids = append(ids, ebpf.MapID(id))
			}
		}
	}
	return ids, nil
}

func mapBytes(id ebpf.MapID) (int64, error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	bytes, _ := info.Memlock()
	return int64(bytes), nil
}
