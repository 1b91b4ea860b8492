package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fenced returns the blocks of a Markdown file between ```yaml and ```, with the line in which each begins.
func fenced(text string) (blocks map[int]string) {
	blocks = map[int]string{}
	begin := 0
	for n, line := range strings.Split(text, "\n") {
		switch {
		case begin == 0 && strings.TrimSpace(line) == "```yaml":
			begin = n + 2
		case begin != 0 && strings.HasPrefix(line, "```"):
			begin = 0
		case begin != 0:
			blocks[begin] += line + "\n"
		}
	}
	return blocks
}

// TestEveryYAMLOfTheDocumentsPassesCheck: an example that an operator copies must be a whole file that applies.
func TestEveryYAMLOfTheDocumentsPassesCheck(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) < 2 {
		t.Fatalf("found %d documents (%v)", len(files), err)
	}
	checked := map[string]int{}
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line, block := range fenced(string(text)) {
			t.Run(fmt.Sprintf("%s:%d", filepath.Base(file), line), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "doc.yaml")
				if err := os.WriteFile(path, []byte(block), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := Check(t.Context(), path, t.TempDir()); err != nil {
					t.Error(err)
				}
			})
			checked[filepath.Base(file)]++
		}
	}
	if checked["tunnels.md"] < 6 {
		t.Errorf("tunnels.md has %d files in YAML, and shows 6 kinds of sites", checked["tunnels.md"])
	}
}
