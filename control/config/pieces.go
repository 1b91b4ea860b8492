package config

import (
	"bytes"
	"errors"
	"hash/maphash"
	"io"
	"maps"
	"math/bits"
	"runtime"
	"sync/atomic"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
)

// bundle is the rules of one piece.
type bundle struct {
	rules []Rule
	names []uint64 // hashes of their names
	line  int      // that the piece began in
	asked map[question]answer
}

// question is what a rule asks of the rest of the file. A rule that was read before is the same rule as long as the
// answers are.
type question struct {
	kind asking
	name string
}

type asking uint8

const (
	whose    asking = iota // name of a set or workload
	isSocket               // name of a socket
	passes                 // interface or tunnel that the policy judges
)

// answer is in or no, and of a set or workload what a rule has to know.
type answer struct {
	known, workload bool
	families        families
}

// ask answers a question out of the file, and notes it.
func (b *builder) ask(q question, in judged) answer {
	var a answer
	switch q.kind {
	case whose:
		a.workload, a.known = b.owners[q.name]
		a.families = b.families[q.name]
	case isSocket:
		a.known = b.hasSocket(q.name)
	case passes:
		a.known = b.judges(q.name, in)
	}
	if b.asked != nil {
		b.asked[q] = a
	}
	return a
}

// parsePieces reads a file in pieces. No Config: it has to be read as a whole.
func parsePieces(src Source, g grain, known memory, files *setReader) (_ *Config, now memory) {
	if len(src.Bytes) > maxFile || !utf8.Valid(src.Bytes) {
		return nil, now
	}
	skeleton, cuts := cutLists(src.Bytes, g)
	if len(cuts) == 0 {
		return nil, now
	}
	r := newReader(newReport(src.Name))
	r.cuts, r.items = cuts, newItemReader(src.Name, known)
	node := r.document(skeleton)
	if node == nil || placed(node, cuts) != len(cuts) {
		return nil, now
	}
	var raw rawConfig
	if r.into(&raw, node, r.at(node, root)); len(r.list) > 0 || r.items.uncertain {
		return nil, now
	}
	b := newBuilder(r.report, files)
	b.known, b.pieces = known, map[fingerprint]bundle{}
	if b.build(&raw); b.uncertain || len(b.list) > 0 {
		return nil, now
	}
	now.pieces, now.items = b.pieces, r.items.found
	return b.cfg, now
}

// rulesOf reads the rules of a list that was cut out. Each piece has its place in the list, so they are read side by side.
func (b *builder) rulesOf(c *cut, in judged) []Rule {
	out := make([]Rule, c.items)
	places := make([][]Rule, len(c.pieces))
	for i, begin := 0, 0; i < len(places); i++ {
		end := begin + c.pieces[i].items
		places[i], begin = out[begin:end:end], end
	}
	workers := make([]pieceReader, runtime.GOMAXPROCS(0))
	names := make([][]uint64, len(c.pieces))
	var next atomic.Int64
	var group errgroup.Group
	for n := range workers {
		w := &workers[n]
		w.init(b, in)
		group.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(places)); i = next.Add(1) - 1 {
				print, err := w.fill(places[i], &c.pieces[i])
				if err != nil {
					next.Store(int64(len(places))) // the others need not go on
					return err
				}
				names[i] = w.found[print].names
			}
			return nil
		})
	}
	b.uncertain = group.Wait() != nil || twice(names, c.items) || b.uncertain
	for _, w := range workers {
		maps.Copy(b.pieces, w.found)
	}
	return out
}

// twice says whether two rules may have one name: their hashes are the same.
func twice(names [][]uint64, rules int) bool {
	seen := make([]uint64, 1<<bits.Len(uint(2*rules))) // hash table; 0 is free
	for _, list := range names {
		for _, name := range list {
			name = max(name, 1)
			at := name & uint64(len(seen)-1)
			for ; seen[at] != 0; at = (at + 1) & uint64(len(seen)-1) {
				if seen[at] == name {
					return true
				}
			}
			seen[at] = name
		}
	}
	return false
}

// errUncertain sends the file back to be read as a whole.
var errUncertain = errors.New("not certain, or not right")

// pieceReader reads pieces of one list, one after the other.
type pieceReader struct {
	*reader
	*builder // its own; what it knows of the rest of the file is that of all, and only read

	in    judged
	found map[fingerprint]bundle
}

// init gives the worker a report of its own: what it says does not matter, but that it says something.
func (w *pieceReader) init(b *builder, in judged) {
	own := *b
	own.report = newReport(b.file)
	w.reader, w.builder, w.in, w.found = newReader(own.report), &own, in, map[fingerprint]bundle{}
	w.pathless = true
}

// fill writes the rules of a piece, from memory or from its text.
func (w *pieceReader) fill(out []Rule, p *piece) (print fingerprint, err error) {
	print = w.known.fingerprint(p.text, w.in)
	before, ok := w.known.pieces[print]
	if ok && len(before.rules) == len(out) && w.same(before.asked) {
		copy(out, before.rules)
		for i := range out {
			out[i].Pos.Line += p.line - before.line
		}
		w.found[print] = bundle{out, before.names, p.line, before.asked}
		return print, nil
	}
	w.asked = map[question]answer{}
	err = w.read(out, p)
	names := make([]uint64, len(out))
	for i := range out {
		names[i] = maphash.String(w.known.seeds[0], out[i].Name)
	}
	w.found[print] = bundle{out, names, p.line, w.asked}
	w.asked = nil
	return print, err
}

// same says whether the rest of the file still gives the same answers.
func (w *pieceReader) same(asked map[question]answer) bool {
	for q, a := range asked {
		if w.ask(q, w.in) != a {
			return false
		}
	}
	return true
}

func (w *pieceReader) read(out []Rule, p *piece) error {
	nodes, err := w.nodes(p)
	if err != nil {
		return err
	}
	for i, node := range nodes {
		var raw rawRule
		w.into(&raw, node, w.at(node, root))
		out[i] = w.ruleOf(&raw, w.in)
	}
	if len(w.reader.list) > 0 {
		return errUncertain
	}
	return nil
}

// nodes are the items of a piece. What is read of them stands where it does in the file.
func (r *reader) nodes(p *piece) (list []*yaml.Node, err error) {
	defer func() {
		if recover() != nil {
			err = errUncertain // a fault of the YAML library ends its caller, not the process: let it happen there
		}
	}()
	in := yaml.NewDecoder(bytes.NewReader(p.text))
	var doc, second yaml.Node
	if in.Decode(&doc) != nil || !errors.Is(in.Decode(&second), io.EOF) || !p.holds(&doc) {
		return nil, errUncertain
	}
	// [! ack] is ack to the library: what must be clear would have to be set (document).
	if bytes.Contains(p.text, []byte("! ")) && r.unquotedFlags(p.text) != nil {
		return nil, errUncertain
	}
	r.lines = p.line - 1
	return doc.Content[0].Content, nil
}

// holds says whether what was read is the items of the piece and nothing else.
func (p *piece) holds(doc *yaml.Node) bool {
	if len(doc.Content) != 1 {
		return false
	}
	list := doc.Content[0]
	return list.Kind == yaml.SequenceNode && list.Style&(yaml.FlowStyle|yaml.TaggedStyle) == 0 && list.Anchor == "" &&
		list.Column == p.indent+1 && len(list.Content) == p.items
}
