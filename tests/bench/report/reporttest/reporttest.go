// Package reporttest holds a benchmark's report against a golden file.
package reporttest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/tests/bench/report"
)

var update = flag.Bool("update", false, "write the golden files")

// Redraw saves made, has c draw it as -redraw does, and compares the text with testdata/NAME.golden.md; -update writes that
// anew. It returns the plots by their files' names: the text shows each, and none has a figure that is no number.
func Redraw(t *testing.T, c report.Command, made report.Drawer) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := report.Save(filepath.Join(dir, c.Name+".json"), made); err != nil {
		t.Fatal(err)
	}
	if err := c.Run(t.Context(), []string{"-redraw", "-out", dir}); err != nil {
		t.Fatal(err)
	}
	got := read(t, filepath.Join(dir, c.Name+".md"))
	golden := filepath.Join("testdata", c.Name+".golden.md")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(read(t, golden), got); diff != "" {
		t.Errorf("go test -update writes it anew:\n%s", diff)
	}
	drawn, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil || len(drawn) != strings.Count(got, ".svg)") {
		t.Errorf("%d plots are drawn, %d shown: %v", len(drawn), strings.Count(got, ".svg)"), err)
	}
	plots := map[string]string{}
	for _, path := range drawn {
		name := filepath.Base(path)
		plots[name] = read(t, path)
		if !strings.Contains(got, "("+name+")") {
			t.Errorf("the report does not show %s", name)
		}
		if strings.Contains(plots[name], "NaN") {
			t.Errorf("a figure of %s is not a number", name)
		}
	}
	return plots
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
