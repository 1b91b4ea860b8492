package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// table prints aligned columns. It keeps the first error of its writer.
type table struct{ w *tabwriter.Writer }

func (c *cli) table(head ...string) *table {
	t := &table{w: tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t.w, strings.Join(head, "\t"))
	return t
}

func (t *table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, cell := range cells {
		text[i] = fmt.Sprint(cell)
		if text[i] == "" {
			text[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(text, "\t"))
}

func (t *table) print() error { return t.w.Flush() }

// bytesText is a size as an operator reads it, in powers of 1024.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, i := float64(n)/unit, 0
	for value >= unit && i < 3 {
		value, i = value/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGT"[i])
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func joined[T fmt.Stringer](list []T) string {
	text := make([]string, len(list))
	for i, v := range list {
		text[i] = v.String()
	}
	return strings.Join(text, " ")
}
