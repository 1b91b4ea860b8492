package arch

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// MaxLines is where a file must have been split.
const MaxLines = 500

// File is a file of the tree: its path from the root, with slashes, and its bytes.
type File struct {
	Path string
	Data []byte
}

// Tree returns every file under root that git has or would add: what is ignored is no part of the project.
func Tree(root string) ([]File, error) {
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files in %s: %w: %s", root, err, stderr.String())
	}
	var files []File
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) { // deleted, but not yet in the index
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, File{Path: name, Data: data})
	}
	return files, nil
}

// Faults returns one line for each habit that a file breaks: it is too long, it names a place of the machine that it was
// written on, or it is C in a folder of Go, which breaks every build with cgo and so the race detector.
func Faults(files []File) []string {
	var faults []string
	goDirs := map[string]bool{}
	for _, f := range files {
		if path.Ext(f.Path) == ".go" {
			goDirs[path.Dir(f.Path)] = true
		}
	}
	for _, f := range files {
		if n := bytes.Count(f.Data, []byte("\n")); n > MaxLines && lengthMatters(f) {
			faults = append(faults, fmt.Sprintf("%s: %d lines: split it (at most %d)", f.Path, n, MaxLines))
		}
		// Objects too: a compiler that is not told otherwise writes its folder into the debug information.
		if m := machinePath.FindSubmatch(f.Data); m != nil {
			faults = append(faults, fmt.Sprintf("%s: names a path of one machine: %s", f.Path, m[1]))
		}
		if slices.Contains([]string{".c", ".h"}, path.Ext(f.Path)) && goDirs[path.Dir(f.Path)] {
			faults = append(faults, f.Path+": C beside Go files: move it into a bpf/ folder")
		}
	}
	return faults
}

var (
	generated = regexp.MustCompile(`(?m)^(//|/\*|#) Code generated .* DO NOT EDIT\.`)
	// A path begins the file, or stands after something that is no part of a longer path or of a URL.
	machinePath = regexp.MustCompile("(?:^|[\\s\"'`=:,(\\[<\\x00])(/(?:work|home|root|Users)/[^\\s\"'`\\x00]*)")
)

// lengthMatters leaves out prose, what tools write, and test data.
func lengthMatters(f File) bool {
	switch path.Ext(f.Path) {
	case ".md", ".sum", ".o":
		return false
	}
	// Go's rule: the mark stands before the first code, so near the top.
	head := f.Data[:min(len(f.Data), 1024)]
	return !strings.Contains("/"+f.Path, "/testdata/") && !strings.HasPrefix(f.Path, "tests/bench/results/") && !generated.Match(head)
}
