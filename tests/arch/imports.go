package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// Module is the path of this module: what stands in front of every import of ours.
const Module = "sluice"

// Package is what `go list -json` says of one package, imports as written in its files.
type Package struct {
	ImportPath   string
	Imports      []string
	TestImports  []string // of _test.go files in the package
	XTestImports []string // of _test.go files in package x_test
}

// List returns the packages of the module whose root is dir.
func List(dir string) ([]Package, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list in %s: %w: %s", dir, err, stderr.String())
	}
	var pkgs []Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p Package
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("read what go list says: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}

// Violations returns one line for every import that the tables do not allow, and for every package that rooms does not
// name. Tests follow the same arrows, and may use the helpers under tests/ and impure packages as well.
func Violations(rooms, impure map[string][]string, pkgs []Package) []string {
	var faults []string
	for _, p := range pkgs {
		from := local(p.ImportPath)
		allowed, known := lookup(rooms, from)
		if !known {
			faults = append(faults, from+": not in the table of tests/arch/rooms.go: add it with the imports it may have")
			continue
		}
		for _, path := range p.Imports {
			switch to, ours := cutModule(path); {
			case ours && to != from && !matchAny(allowed, to):
				faults = append(faults, fmt.Sprintf("%s imports %s: not allowed by tests/arch/rooms.go", from, to))
			case !ours && matchAny(impure[from], path):
				faults = append(faults, fmt.Sprintf("%s imports %s: it must stay pure, so take the value as an argument", from, path))
			}
		}
		for _, path := range append(append([]string{}, p.TestImports...), p.XTestImports...) {
			to, ours := cutModule(path)
			if ours && to != from && !matchAny(allowed, to) && !matchAny(TestRooms[from], to) && !match("tests/...", to) {
				faults = append(faults, fmt.Sprintf("a test of %s imports %s: not allowed by tests/arch/rooms.go", from, to))
			}
		}
	}
	return faults
}

func cutModule(path string) (string, bool) { return strings.CutPrefix(path, Module+"/") }

func local(path string) string {
	path, _ = cutModule(path)
	return path
}

// lookup finds the line of a package: its own, else that of a tree it is in.
func lookup(rooms map[string][]string, pkg string) ([]string, bool) {
	if allowed, ok := rooms[pkg]; ok {
		return allowed, true
	}
	for pattern, allowed := range rooms {
		if strings.HasSuffix(pattern, "/...") && match(pattern, pkg) {
			return allowed, true
		}
	}
	return nil, false
}

func matchAny(patterns []string, pkg string) bool {
	for _, p := range patterns {
		if match(p, pkg) {
			return true
		}
	}
	return false
}

func match(pattern, pkg string) bool {
	if pattern == "..." {
		return true
	}
	tree, isTree := strings.CutSuffix(pattern, "/...")
	return pkg == tree || isTree && strings.HasPrefix(pkg, tree+"/")
}
