package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const report = `# The path

A full run.

- Kernel 6.12
- Load averages at the start: LOAD

## Targets

| what | target |
| --- | ---: |
| RR | 1 |

## Method

text

![costs](path-rr.svg)
`

func TestTheIndexShowsWhatEveryReportFoundAndItsPlots(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"path.md", "ingress.md"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.NewReplacer("path", strings.TrimSuffix(name, ".md"), "LOAD", name).Replace(report)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(dir); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, links, _ := strings.Cut(string(got), "again.\n\n")
	want := `- [The ingress](ingress.md)
- [The path](path.md)

## [The ingress](ingress.md)

A full run.

- Kernel 6.12
- Load averages at the start: ingress.md

### Targets

| what | target |
| --- | ---: |
| RR | 1 |

![costs](ingress-rr.svg)

## [The path](path.md)

A full run.

### Targets

| what | target |
| --- | ---: |
| RR | 1 |

![costs](path-rr.svg)
`
	if diff := cmp.Diff(want, links); diff != "" {
		t.Error(diff)
	}
}

func TestAFolderWithoutReportsAndATextThatIsNoReportAreErrors(t *testing.T) {
	dir := t.TempDir()
	if err := run(dir); err == nil {
		t.Error("an index of nothing was written")
	}
	if err := os.WriteFile(filepath.Join(dir, "path.md"), []byte("# The path\n\na\n\nb\n\nc\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(dir); err == nil || !strings.Contains(err.Error(), "path.md") {
		t.Errorf("a report without a section: %v", err)
	}
}
