// Package tools tests the scripts of this folder: a check that cannot fail is worse than none.
package tools

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repo makes a git repository with the given files in its index, and returns its folder.
func repo(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}} {
		if out, err := command(t, dir, "git", args...); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	return dir
}

// command runs a program in dir and returns what it printed, on both streams.
func command(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// script is the absolute path of a script of this folder.
func script(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnchangedFailsWhenACommandChangesTheTree(t *testing.T) {
	for _, c := range []struct {
		name, shell string
		names       string // the file that the failure names; empty: success
	}{
		{"nothing", "true", ""},
		{"an ignored file", "echo x > a.tmp", ""},
		{"the same bytes again", "echo one > sub/a.go", ""},
		{"a changed file", "echo two > sub/a.go", "sub/a.go"},
		{"a new file", "echo x > sub/b_bpfel.go", "sub/b_bpfel.go"},
		{"a removed file", "rm sub/a.go", "sub/a.go"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := repo(t, map[string]string{"sub/a.go": "one\n", ".gitignore": "*.tmp\n"})
			// Work in progress on another file must not disturb it, nor the developer's index be touched.
			if err := os.WriteFile(filepath.Join(dir, "wip.go"), []byte("wip\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := command(t, filepath.Join(dir, "sub"), script(t, "unchanged.sh"), "sh", "-c", "cd .. && "+c.shell)
			if (err == nil) != (c.names == "") || !strings.Contains(out, c.names) || strings.Contains(out, "wip.go") {
				t.Errorf("error %v, printed:\n%s", err, out)
			}
			if status, _ := command(t, dir, "git", "status", "--short", "wip.go"); status != "?? wip.go\n" {
				t.Errorf("the index was touched: %q", status)
			}
		})
	}
}

func TestUnchangedPassesOnAFailure(t *testing.T) {
	out, err := command(t, repo(t, nil), script(t, "unchanged.sh"), "sh", "-c", "exit 3")
	if err == nil {
		t.Errorf("the command failed and the script did not: %s", out)
	}
}

func TestLintCFindsWarningsAndBadFormat(t *testing.T) {
	const good = "int answer(int x)\n{\n\treturn x + 42;\n}\n"
	format, err := os.ReadFile("../../.clang-format")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		says  string
		ok    bool
	}{
		{"no C", map[string]string{"a.go": ""}, "no C in this tree", true},
		{"good C", map[string]string{"xdp/bpf/a.c": good, "xdp/include/a.h": "int answer(int x);\n"},
			"1 sources compiled, 2 files", true},
		{"a program of this machine", map[string]string{"tests/host/a.c": "#include <stdio.h>\n\nint main(void)\n{\n\tputs(\"\");\n}\n"},
			"1 sources compiled, 1 files", true},
		{"a warning in a program of this machine", map[string]string{"tests/host/a.c": "int f(int x)\n{\n\treturn 0;\n}\n"}, "unused parameter", false},
		{"an unused variable (-Wall)", map[string]string{"tc/bpf/a.c": "int f(void)\n{\n\tint x;\n\treturn 0;\n}\n"}, "unused variable", false},
		{"an unused parameter (-Wextra)", map[string]string{"tc/bpf/a.c": "int f(int x)\n{\n\treturn 0;\n}\n"}, "unused parameter", false},
		{"a badly formatted source", map[string]string{"xdp/bpf/a.c": "int f(void) { return 0; }\n"}, "clang-format", false},
		{"a badly formatted header", map[string]string{"xdp/bpf/a.c": good, "xdp/include/a.h": "int  f( void );\n"}, "clang-format", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.files[".clang-format"] = string(format)
			out, err := command(t, repo(t, c.files), script(t, "lint-c.sh"))
			if (err == nil) != c.ok || !strings.Contains(out, c.says) {
				t.Errorf("error %v, want %q in:\n%s", err, c.says, out)
			}
		})
	}
}

func TestFuzzRunsEveryTargetAndFailsWithoutOne(t *testing.T) {
	const target = "package a\nimport \"testing\"\nfunc FuzzA(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) {}) }\n"
	dir := repo(t, map[string]string{"go.mod": "module m\n\ngo 1.26\n", "sub/a_test.go": target})
	out, err := command(t, dir, script(t, "fuzz.sh"), "10x")
	if err != nil || !strings.Contains(out, "== ./sub FuzzA") || !strings.Contains(out, "fuzz: 1 targets") {
		t.Errorf("error %v, printed:\n%s", err, out)
	}
	out, err = command(t, repo(t, map[string]string{"go.mod": "module m\n"}), script(t, "fuzz.sh"), "10x")
	if err == nil || !strings.Contains(out, "no target found") {
		t.Errorf("a tree without targets passed: %s", out)
	}
}

func TestDepsHaveNothingLeftToDo(t *testing.T) {
	// The suite runs after `make deps`, so a look finds everything there. A test itself installs nothing: -n.
	out, err := command(t, ".", script(t, "deps.sh"), "-n")
	if err != nil || !strings.HasPrefix(out, "deps: everything is installed") || strings.Count(out, "\n") != 1 {
		t.Errorf("run 'make deps': error %v, printed:\n%s", err, out)
	}
}

// fakes puts shell scripts in front of PATH, to stand in for programs of the same names.
func fakes(t *testing.T, programs map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// freshMachine is a dpkg-query that knows no package.
const freshMachine = "exit 1"

func TestDepsNameWhatIsMissing(t *testing.T) {
	fakes(t, map[string]string{"dpkg-query": freshMachine, "apt-get": "echo must not run; exit 1"})
	out, err := command(t, ".", script(t, "deps.sh"), "-n")
	if err == nil || !strings.Contains(out, "missing: installing with apt-get: clang-19 llvm-19") || strings.Contains(out, "must not run") {
		t.Errorf("error %v, printed:\n%s", err, out)
	}
}

func TestDepsGetTheListsWhenAnInstallFails(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	// The first install fails as it does without lists; after an update the second one works.
	fakes(t, map[string]string{
		"dpkg-query": freshMachine,
		"apt-get": `for a in "$@"; do case $a in install|update) verb=$a;; esac; done
echo "$verb $DEBIAN_FRONTEND" >> ` + log + `
[ "$verb" = update ] || grep -q update ` + log,
		"systemctl": "exit 0",
	})
	if out, err := command(t, ".", script(t, "deps.sh")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if want := "install noninteractive\nupdate noninteractive\ninstall noninteractive\n"; string(calls) != want {
		t.Errorf("apt-get was called\n%swant\n%s", calls, want)
	}
}

func TestDepsFailWhenThePackagesCannotBeHad(t *testing.T) {
	fakes(t, map[string]string{"dpkg-query": freshMachine, "apt-get": "echo E: no such package >&2; exit 100"})
	out, err := command(t, ".", script(t, "deps.sh"))
	if err == nil || !strings.Contains(out, "E: no such package") {
		t.Errorf("error %v, printed:\n%s", err, out)
	}
}
