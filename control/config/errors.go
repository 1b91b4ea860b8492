package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Error is one thing that is wrong with a file.
type Error struct {
	Pos  Pos
	Path string // YAML path, such as policy.ingress.rules[2].ports[0]; "" for the file as a whole
	Msg  string
	Hint string // what would be right; "" where that is plain
}

// Error gives "edge.yaml:12:5: path: message; hint".
func (e Error) Error() string {
	var b strings.Builder
	for _, part := range []string{e.Pos.String(), e.Path} {
		if part != "" {
			b.WriteString(part + ": ")
		}
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Errors is everything that is wrong with a file and its set files, sorted by place. It holds at most 100 errors of the
// file and 20 of each set file, and a last one that counts the others.
type Errors []Error

// Error gives one error per line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// First is one line of an error: of Errors the first one, and how many more there are.
func First(err error) error {
	var list Errors
	if errors.As(err, &list) && len(list) > 1 {
		return fmt.Errorf("%w (and %d more)", list[0], len(list)-1)
	}
	return err
}

// String gives "file:line:column", without the parts that are unknown.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// problem is what is wrong with one value, before anybody knows where it stands. The zero problem is none.
type problem struct{ msg, hint string }

func (p problem) none() bool { return p.msg == "" }

// bad makes a problem without a hint.
func bad(format string, args ...any) problem {
	return problem{msg: fmt.Sprintf(format, quoted(args)...)}
}

// printable returns a word of the file as it is, or quoted where that would upset a terminal.
func printable(s string) string {
	if s = spokenWord(s); strings.HasSuffix(s, withheld) {
		return clip(s)
	}
	if len(s) <= 200 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == "" {
		return s
	}
	if len(s) <= 200 && strconv.Quote(s) == `"`+s+`"` {
		return s
	}
	return strconv.Quote(strings.ToValidUTF8(s[:min(len(s), 200)], ""))
}

// or adds a hint.
func (p problem) or(format string, args ...any) problem {
	p.hint = fmt.Sprintf(format, quoted(args)...)
	return p
}

const (
	maxShown = 100    // errors kept of the file
	maxOfSet = 20     // errors kept of a set file: what is wrong with it is wrong with most lines
	maxHeld  = 10_000 // errors remembered of one file before sorting: bounds the memory that a wrong file costs
)

// report collects errors.
type report struct {
	file   string // the main file: its errors come first
	list   Errors
	counts map[string]int
	ended  map[string]int // files that were so wrong that reading ended, with the line
}

func newReport(file string) *report {
	return &report{file: file, counts: map[string]int{}, ended: map[string]int{}}
}

func (r *report) add(a at, p problem) {
	if a.path == root {
		a.path = ""
	}
	r.counts[a.pos.File]++
	if r.counts[a.pos.File] <= maxHeld {
		spoken := func(s string) string { return WithholdKeys(s, withheld, nil) } // of errors that others made
		r.list = append(r.list, Error{Pos: a.pos, Path: spoken(a.path), Msg: spoken(p.msg), Hint: spoken(p.hint)})
	}
}

// err returns nil or Errors.
func (r *report) err() error {
	if len(r.list) == 0 {
		return nil
	}
	slices.SortStableFunc(r.list, func(a, b Error) int {
		return cmp.Or(r.order(a.Pos.File, b.Pos.File), cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column))
	})
	var out Errors
	for start := 0; start < len(r.list); {
		file := r.list[start].Pos.File
		end := start
		for end < len(r.list) && r.list[end].Pos.File == file {
			end++
		}
		shown := maxShown
		if file != r.file {
			shown = maxOfSet
		}
		out = append(out, r.list[start:min(end, start+shown)]...)
		if more := r.counts[file] - shown; more > 0 {
			last := Error{Pos: Pos{File: file}, Msg: fmt.Sprintf("and %d more", more)}
			if line := r.ended[file]; line > 0 {
				last.Msg += fmt.Sprintf(" up to line %d; the rest was not read", line)
			}
			out = append(out, last)
		}
		start = end
	}
	return out
}

func (r *report) order(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == r.file:
		return -1
	case b == r.file:
		return 1
	}
	return cmp.Compare(a, b)
}
