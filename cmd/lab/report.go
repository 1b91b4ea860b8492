package lab

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// report prints what holds and what does not, each line as soon as it is known.
type report struct {
	out         io.Writer
	start       time.Time
	held, lines int
}

func newReport(out io.Writer) *report { return &report{out: out, start: time.Now()} }

// line prints a tick and what was measured, or a cross and what is wrong with it.
func (r *report) line(name, figures string, err error) {
	r.lines++
	mark := "✓"
	if err == nil {
		r.held++
	} else {
		mark = "✗"
		// The first line says it; the rest, such as the end of a log, stands below.
		first, rest, _ := strings.Cut(err.Error(), "\n")
		figures = strings.TrimPrefix(figures+"; "+first, "; ")
		defer r.detail(rest)
	}
	fmt.Fprintf(r.out, "%s %-8s %s\n", mark, name, figures)
}

// detail prints text below a line.
func (r *report) detail(text string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			fmt.Fprintf(r.out, "           %s\n", line)
		}
	}
}

// summary prints the end, and says whether every line holds. A demo that broke off does not hold.
func (r *report) summary(wanted int) bool {
	fmt.Fprintf(r.out, "\n%d of %d hold, in %s\n", r.held, wanted, round(time.Since(r.start)))
	return r.held == wanted
}
