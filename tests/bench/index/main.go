// Command index writes README.md beside the reports of the benchmarks: what each of them found, in one page. `make
// bench-all` runs it behind them.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// reports are those that there may be, in the order of the page.
var reports = []string{"ingress.md", "path.md", "footprint.md", "tunnel.md", "bgp.md"}

func main() {
	out := flag.String("out", "tests/bench/results", "folder of the reports")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	var pages []page
	for _, name := range reports {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		p, err := read(name, string(text))
		if err != nil {
			return err
		}
		pages = append(pages, p)
	}
	if len(pages) == 0 {
		return fmt.Errorf("%s holds no report: make bench-all makes them", dir)
	}
	return os.WriteFile(filepath.Join(dir, "README.md"), []byte(index(pages)), 0o644)
}

// page is what the index says of a report.
type page struct {
	file, title string
	about       string // the paragraph below the title: size, revision, date
	machine     string // the list behind that
	first       string // the first section, which is what was found: targets, say
	figures     []string
}

// read finds the parts that every report has: "# title", a paragraph, a list about the machine, a section.
func read(name, text string) (page, error) {
	p := page{file: name, figures: regexp.MustCompile(`(?m)^!\[.*\]\(.*\)$`).FindAllString(text, -1)}
	parts := strings.SplitN(text, "\n\n", 4)
	if len(parts) < 4 || !strings.HasPrefix(parts[0], "# ") || !strings.HasPrefix(parts[3], "## ") {
		return p, fmt.Errorf("%s does not begin with a title, a paragraph, the machine and a section", name)
	}
	first, _, _ := strings.Cut(parts[3], "\n## ")
	p.title, p.about, p.machine, p.first = strings.TrimPrefix(parts[0], "# "), parts[1], parts[2], "#"+strings.TrimSpace(first)
	return p, nil
}

var loads = regexp.MustCompile(`(?m)^- Load averages.*$`)

func index(pages []page) string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nSluice beside its rivals, in lanes that are up at once and take turns. A figure is a median with the interval that holds it 95\n" +
		"times of 100; a ratio is that of values of the same round. `make bench-all` makes everything again.\n\n")
	for _, p := range pages {
		fmt.Fprintf(&b, "- [%s](%s)\n", p.title, p.file)
	}
	machine := ""
	for _, p := range pages {
		fmt.Fprintf(&b, "\n## [%s](%s)\n\n%s\n", p.title, p.file, p.about)
		// Mostly one machine made all of them, and its load alone differs.
		if m := loads.ReplaceAllString(p.machine, ""); m != machine {
			machine = m
			fmt.Fprintf(&b, "\n%s\n", p.machine)
		}
		fmt.Fprintf(&b, "\n%s\n", p.first)
		for _, f := range p.figures {
			if !strings.Contains(p.first, f) {
				fmt.Fprintf(&b, "\n%s\n", f)
			}
		}
	}
	return b.String()
}
