package config

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// at is where something stands in a file. The zero at means that the file does not say it.
type at struct {
	pos  Pos
	path string
}

func (a at) written() bool { return a.path != "" }

func (a *at) place(to at) { *a = to }

func (a *at) shift(lines int) { a.pos.Line += lines }

// takes says which YAML scalars a leaf is written as.
type takes uint8

const (
	text takes = 1 << iota
	integer
	boolean
)

func (t takes) String() string {
	var words []string
	if t&text != 0 {
		words = append(words, "text")
	}
	if t&integer != 0 {
		words = append(words, "a whole number")
	}
	if t&boolean != 0 {
		words = append(words, "true or false")
	}
	return strings.Join(words, " or ")
}

// part is anything in the raw tree that is not a struct: it reads itself and describes itself.
type part interface {
	read(r *reader, n *yaml.Node, a at)
	schema(s *schemas) schema
}

// leaf judges the text of one scalar and keeps its value.
type leaf interface {
	takes() takes
	parse(s string) problem
	describe() schema // without "type", which comes from takes
}

// val is a scalar that is a leaf (*T implements leaf). ok says that v can be relied on.
type val[T any] struct {
	at
	v  T
	ok bool
}

func (v *val[T]) read(r *reader, n *yaml.Node, a at) {
	l := any(&v.v).(leaf)
	v.ok = r.scalar(n, a, l.takes(), l.parse)
}

func (v *val[T]) schema(*schemas) schema {
	l := any(&v.v).(leaf)
	return l.describe().typed(l.takes())
}

// list is a sequence of parts or structs. Items of the wrong shape are left out; whole says that there are none.
type list[T any] struct {
	at
	items []T
	whole bool
	cut   *cut // the items stand elsewhere
}

// empty says that the file writes [].
func (l *list[T]) empty() bool { return l.whole && !l.any() }

// any says that there are items, here or elsewhere.
func (l *list[T]) any() bool { return len(l.items) > 0 || l.cut != nil }

// unsure says that the list is written, but not all of it could be read.
func (l *list[T]) unsure() bool { return l.written() && !l.whole }

func (l *list[T]) read(r *reader, n *yaml.Node, a at) {
	if !r.kind(n, yaml.SequenceNode, "a list", a) {
		return
	}
	if c := r.cuts[n.Line]; c != nil && c.heldBy(n) {
		l.whole, l.cut = true, c
		if c.key == peersKey && r.items != nil {
			l.items, l.cut = itemsOf[T](r.items, c), nil
		}
		return
	}
	l.items = make([]T, 0, len(n.Content))
	for i, node := range n.Content {
		var item T
		if r.into(&item, node, r.at(node, r.item(a.path, i))) {
			l.items = append(l.items, item)
		}
	}
	l.whole = len(l.items) == len(n.Content)
}

func (l *list[T]) schema(s *schemas) schema {
	return schema{"type": "array", "items": s.of(new(T))}
}

// either is a scalar, or a mapping that can say more.
type either[S, M any] struct {
	at
	short S
	long  M
}

func (e *either[S, M]) read(r *reader, n *yaml.Node, a at) {
	if n.Kind == yaml.MappingNode {
		r.into(&e.long, n, a)
		return
	}
	r.into(&e.short, n, a)
}

func (e *either[S, M]) schema(s *schemas) schema {
	return schema{"oneOf": []any{s.of(&e.short), s.of(&e.long)}}
}

// words are the values of an enumeration.
type words struct {
	now  []string
	mean map[string]string // what other systems say, and what we say: for hints only
}

// enum is a string type with a fixed set of values.
type enum interface {
	~string
	words() words
}

// pick is a scalar that is one word of an enumeration.
type pick[E enum] struct {
	at
	v  E
	ok bool
}

func (p *pick[E]) read(r *reader, n *yaml.Node, a at) {
	words := r.wordsOf(reflect.TypeFor[E](), p.v)
	p.ok = r.scalar(n, a, text, func(s string) problem {
		p.v = E(s)
		return words.judge(s)
	})
	if i := slices.Index(words.now, string(p.v)); i >= 0 {
		p.v = E(words.now[i]) // one string for all who say it
	}
}

func (p *pick[E]) schema(*schemas) schema {
	return schema{"type": "string", "enum": p.v.words().now}
}

// or returns the word, or what stands for it where the file does not say.
func (p *pick[E]) or(unwritten E) E {
	if p.written() {
		return p.v
	}
	return unwritten
}

func (r *reader) wordsOf(t reflect.Type, e interface{ words() words }) words {
	known, ok := r.words[t]
	if !ok {
		known = e.words()
		r.words[t] = known
	}
	return known
}

func (w words) judge(s string) problem {
	if slices.Contains(w.now, s) {
		return problem{}
	}
	p := bad("%q is not one of %s", s, strings.Join(w.now, ", "))
	if len(w.now) == 1 {
		p = bad("%q is not %s", s, w.now[0])
	}
	if our := w.mean[s]; our != "" {
		return p.or("write %s", our)
	}
	if near := nearest(s, w.now); near != "" {
		return p.or("did you mean %s?", near)
	}
	return p
}

// number is an integer type with inclusive bounds.
type number interface {
	~int | ~uint16 | ~uint32
	bounds() (lowest, highest int64)
}

// num is a decimal whole number within the bounds of its type.
type num[N number] struct {
	at
	v  N
	ok bool
}

func (v *num[N]) read(r *reader, n *yaml.Node, a at) {
	v.ok = r.scalar(n, a, integer, func(s string) problem {
		low, high := v.v.bounds()
		i, p := decimal(s, low, high)
		v.v = N(i)
		return p
	})
}

func (v *num[N]) schema(*schemas) schema {
	low, high := v.v.bounds()
	return schema{"type": "integer", "minimum": low, "maximum": high}
}

// or returns the number, or what stands for it where the file does not say.
func (v *num[N]) or(unwritten N) N {
	if v.written() {
		return v.v
	}
	return unwritten
}

// decimal reads a number without sign, leading zeros or another base: YAML readers disagree on 010.
func decimal(s string, low, high int64) (int64, problem) {
	i, err := strconv.ParseInt(s, 10, 64)
	canonical := err == nil && strconv.FormatInt(i, 10) == s
	switch {
	case !canonical && s != "" && digits(s) && s[0] == '0':
		return 0, bad("%s begins with a zero", s).or("write %s", cmp.Or(strings.TrimLeft(s, "0"), "0"))
	case !canonical && (s == "" || !digits(s)):
		return 0, bad("%q is not a decimal whole number", s)
	case !canonical || i < low || i > high:
		return 0, bad("%s is outside %d-%d", s, low, high)
	}
	return i, problem{}
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// truth is true or false.
type truth bool

func (f *truth) takes() takes     { return boolean }
func (f *truth) describe() schema { return schema{} }
func (f *truth) parse(s string) problem {
	switch s {
	case "true", "false":
		*f = s == "true"
		return problem{}
	case "yes", "Yes", "on", "On", "True", "TRUE":
		return bad("%q is not true or false", s).or("write true")
	case "no", "No", "off", "Off", "False", "FALSE":
		return bad("%q is not true or false", s).or("write false")
	}
	return bad("%q is not true or false", s)
}

// describeNode names a YAML node's type for an error.
func describeNode(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int":
		return "a whole number"
	case "!!bool":
		return "true or false"
	case "!!float":
		return "a number"
	case "!!timestamp":
		return "a date"
	case "!!str":
		return "text"
	}
	return fmt.Sprintf("a %s", strings.TrimPrefix(n.ShortTag(), "!!"))
}
