package disk

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
)

// Faults are the files of the state directory that could not be written, or not be read as what was written, for as long as that matters.
// What cannot be written is logged when that changes, and not at each try. It is safe for concurrent use; nil hears nothing.
type Faults struct {
	log     *slog.Logger
	changed func() // after what List gives has changed, one call at a time: the last one finds the last list; must not block

	telling   sync.Mutex // held while changed is called
	mu        sync.Mutex
	unwritten map[string]string
	damaged   map[string]string
}

// NewFaults begins without any.
func NewFaults(log *slog.Logger, changed func()) *Faults {
	return &Faults{log: log, changed: changed, unwritten: map[string]string{}, damaged: map[string]string{}}
}

// Wrote takes the outcome of a try to write a file, called as it lies in the state directory. What is on the disk is whole again, too.
func (f *Faults) Wrote(file string, err error) {
	if f == nil {
		return
	}
	if err == nil {
		if f.alter(f.unwritten, file, "") {
			f.log.Info("a file of the state directory is written again", "file", file)
		}
		f.alter(f.damaged, file, "")
		return
	}
	if f.alter(f.unwritten, file, err.Error()) {
		f.log.Error("a file of the state directory cannot be written; it is tried again", "file", file, "error", err)
	}
}

// Writing is Wrote of one file.
func (f *Faults) Writing(file string) func(error) {
	return func(err error) { f.Wrote(file, err) }
}

// Damaged says what was wrong with a file, and what that costs. It holds until the file is written, or until it is called with "". Who
// calls it has it in the log.
func (f *Faults) Damaged(file, what string) {
	if f != nil {
		f.alter(f.damaged, file, what)
	}
}

// alter says whether that was a change.
func (f *Faults) alter(list map[string]string, file, text string) bool {
	f.mu.Lock()
	same := list[file] == text
	if list[file] = text; text == "" {
		delete(list, file)
	}
	f.mu.Unlock()
	if !same {
		f.telling.Lock()
		defer f.telling.Unlock()
		f.changed()
	}
	return !same
}

// Unwritten says whether a file waits for room: one of these, or without any, one at all.
func (f *Faults) Unwritten(files ...string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(files) == 0 && len(f.unwritten) > 0 || slices.ContainsFunc(files, func(file string) bool { return f.unwritten[file] != "" })
}

// List is what is wrong now, a sentence each, sorted by files.
func (f *Faults) List() (unwritten, damaged []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return sentences(f.unwritten), sentences(f.damaged)
}

func sentences(list map[string]string) (out []string) {
	for _, file := range slices.Sorted(maps.Keys(list)) {
		out = append(out, file+": "+list[file])
	}
	return out
}
