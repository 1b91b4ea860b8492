package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A module with one package of each kind, so that the go command itself proves what its events look like.
var module = map[string]string{
	"go.mod":              "module m\n\ngo 1.26\n",
	"good/a_test.go":      "package a\nimport \"testing\"\nfunc TestGood(t *testing.T) {}\n",
	"bad/a_test.go":       "package a\nimport \"testing\"\nfunc TestBad(t *testing.T) { t.Error(\"one is not two\") }\n",
	"skips/a_test.go":     "package a\nimport \"testing\"\nfunc TestSkips(t *testing.T) { t.Skip(\"no capability\") }\n",
	"panics/a_test.go":    "package a\nimport \"testing\"\nfunc TestPanics(t *testing.T) { panic(\"out of bounds\") }\n",
	"broken/a_test.go":    "package a\nimport \"testing\"\nfunc TestBroken(t *testing.T) { undefinedName() }\n",
	"silent/a_test.go":    "package a\nimport (\"os\"; \"testing\")\nfunc TestMain(m *testing.M) { os.Exit(0) }\nfunc TestSilent(t *testing.T) {}\n",
	"exits/a_test.go":     "package a\nimport (\"os\"; \"testing\")\nfunc TestMain(m *testing.M) { m.Run(); os.Exit(3) }\nfunc TestFine(t *testing.T) {}\n",
	"untested/a.go":       "package a\n",
	"benchonly/a_test.go": "package a\nimport \"testing\"\nfunc BenchmarkA(b *testing.B) {}\n",
}

func writeModule(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range module {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRunJudgesEveryKindOfPackage(t *testing.T) {
	var out bytes.Buffer
	tally, err := run(t.Context(), writeModule(t), []string{"./..."}, &out)
	if err != nil {
		t.Fatal(err)
	}
	tally.Report()
	for _, says := range []string{
		"FAIL m/bad TestBad\n", "one is not two",
		"SKIP m/skips TestSkips\n", "no capability",
		"FAIL m/panics TestPanics", "panic: out of bounds",
		"FAIL m/broken: failed outside of its tests", "undefined: undefinedName",
		"FAIL m/silent: has test files but ran no test",
		"FAIL m/benchonly: has test files but ran no test",
		"FAIL m/exits: failed outside of its tests",
		"1 tests  m/good\n",
	} {
		if !strings.Contains(out.String(), says) {
			t.Errorf("%q is missing", says)
		}
	}
	if got, want := tally.Summary(), "2 passed, 6 failed, 1 skipped"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func TestRunTellsWhenTheGoCommandItselfFails(t *testing.T) {
	var out bytes.Buffer
	if _, err := run(t.Context(), writeModule(t), []string{"-p=many", "./good"}, &out); err == nil {
		t.Errorf("a bad flag of go test was taken for a good run:\n%s", out.String())
	}
}
