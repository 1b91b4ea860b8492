package config

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reader walks YAML nodes into the raw structs.
type reader struct {
	*report
	keys  map[reflect.Type][]key // cache of keysOf
	words map[reflect.Type]words // cache of enum.words
	cuts  map[int]*cut           // whose placeholders stand in what is read, by line
	items *itemReader            // of lists that were cut out; nil: they stay cut

	// Of a piece: it begins further down in the file, and nobody reads the paths of its errors.
	lines    int // in front of it
	pathless bool
}

func newReader(r *report) *reader {
	return &reader{report: r, keys: map[reflect.Type][]key{}, words: map[reflect.Type]words{}}
}

// key is one key of a raw struct, from its tag `key:"name,required"`.
type key struct {
	name     string
	required bool
	field    []int // as reflect.Value.FieldByIndex takes it
}

// keysOf lists the keys of a raw struct, those of embedded structs with them: the reader and the schema both ask here and
// nowhere else.
func keysOf(t reflect.Type) []key {
	var out []key
	for _, f := range reflect.VisibleFields(t) {
		tag, ok := f.Tag.Lookup("key")
		if !ok {
			continue
		}
		name, option, _ := strings.Cut(tag, ",")
		out = append(out, key{name: name, required: option == "required", field: f.Index})
	}
	return out
}

func (r *reader) keysOf(t reflect.Type) []key {
	if r.keys[t] == nil {
		r.keys[t] = keysOf(t)
	}
	return r.keys[t]
}

func (r *reader) at(n *yaml.Node, path string) at {
	return at{Pos{r.file, r.lines + n.Line, n.Column}, path}
}

// into reads a node into a part or a raw struct, both of which embed at. False says that the node has the wrong shape, so
// that nothing more can be said of it.
func (r *reader) into(target any, n *yaml.Node, a at) bool {
	target.(interface{ place(at) }).place(a)
	if n.Anchor != "" || n.Kind == yaml.AliasNode {
		r.add(a, bad("anchors and aliases are not supported").or("write the value out"))
		return false
	}
	if n.Style&yaml.TaggedStyle != 0 {
		r.add(a, tagged(n))
		return false
	}
	if p, ok := target.(part); ok {
		p.read(r, n, a)
		return true
	}
	return r.object(reflect.ValueOf(target).Elem(), n, a)
}

// tagged is about a value that begins with !, which is a tag to YAML.
func tagged(n *yaml.Node) problem {
	word := strings.TrimSuffix(n.Tag, ",") // [!ack, syn] has the tag "!ack,"
	if !strings.HasPrefix(word, "!!") && (n.Value == "" || word != n.Tag) {
		return bad("%s is a tag to YAML", word).or(`put it in quotes: "%s"`, word)
	}
	return bad("YAML tags are not supported").or("remove the tag")
}

// object reads a mapping into a raw struct.
func (r *reader) object(v reflect.Value, n *yaml.Node, a at) bool {
	if !r.kind(n, yaml.MappingNode, "a mapping", a) {
		return false
	}
	keys := r.keysOf(v.Type())
	seen := make([]int, len(keys)) // the line of each key
	var unknown map[string]int
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if !r.plainKey(name, r.at(name, a.path)) {
			continue
		}
		j, spoken := slices.IndexFunc(keys, func(k key) bool { return k.name == name.Value }), name.Value
		if j < 0 {
			spoken = spokenKey(name, value)
		}
		here := r.at(name, r.join(a.path, spoken))
		first := unknown[name.Value]
		if j >= 0 {
			first = seen[j]
		}
		switch {
		case first > 0:
			r.add(here, bad("duplicate key").or("the first stands in line %d", first))
		case j >= 0:
			seen[j] = here.pos.Line
			r.into(v.FieldByIndex(keys[j].field).Addr().Interface(), value, r.at(value, here.path))
		default:
			if unknown == nil {
				unknown = map[string]int{}
			}
			unknown[name.Value] = here.pos.Line
			r.add(here, unknownKey(name.Value, spoken, keys))
		}
	}
	for j, k := range keys {
		if k.required && seen[j] == 0 {
			r.add(a, bad("`%s` is missing", k.name))
		}
	}
	return true
}

func (r *reader) join(path, key string) string {
	switch {
	case r.pathless:
		return root
	case path == root:
		return printable(key)
	}
	return path + "." + printable(key)
}

func (r *reader) item(path string, i int) string {
	if r.pathless {
		return root
	}
	return path + "[" + strconv.Itoa(i) + "]"
}

func (r *reader) plainKey(n *yaml.Node, a at) bool {
	switch {
	case n.Anchor != "" || n.Kind == yaml.AliasNode:
		r.add(a, bad("anchors and aliases are not supported").or("write the key out"))
	case n.ShortTag() == "!!merge":
		r.add(a, bad("merge keys (<<) are not supported").or("write the keys out"))
	case n.Kind != yaml.ScalarNode || n.Style&yaml.TaggedStyle != 0:
		r.add(a, bad("a key must be a plain word"))
	default:
		return true
	}
	return false
}

// otherWords are what others (packet filters, ethtool, VyOS) call keys of ours.
func otherWords() map[string]string {
	return map[string]string{
		"source": "from", "src": "from", "saddr": "from", "destination": "to", "dst": "to", "daddr": "to", "proto": "protocol",
		"dport": "ports", "destination_ports": "ports", "destination_port": "ports", "sport": "source_ports", "then": "action",
		"channels": "queues", "combined": "queues", "ring_buffer": "rings", "ring-buffer": "rings", "interrupt-coalescing": "coalesce", "smp_affinity": "irq_affinity",
	}
}

// unknownKey tells apart a secret and a key that never was. spoken is the name without what may be secret.
func unknownKey(name, spoken string, keys []key) problem {
	if instead := secretKeys()[name]; instead != "" {
		return bad("a secret does not belong in this file").or("write its path as %s", instead)
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	if front, _, found := strings.Cut(name, ":"); found && slices.Contains(names, front) {
		return bad("unknown key `%s`", printable(spoken)).or("write a blank behind the colon of %s", front)
	}
	if near := nearest(name, names); near != "" {
		return bad("unknown key `%s`", printable(spoken)).or("did you mean %s?", near)
	}
	if ours := otherWords()[name]; ours != "" && slices.Contains(names, ours) {
		return bad("unknown key `%s`", printable(spoken)).or("did you mean %s?", ours)
	}
	slices.Sort(names)
	return bad("unknown key `%s`", printable(spoken)).or("the keys here are %s", strings.Join(names, ", "))
}

// kind checks that a node is a list or a mapping.
func (r *reader) kind(n *yaml.Node, want yaml.Kind, what string, a at) bool {
	switch {
	case n.Kind == want:
		return true
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		r.add(a, bad("the key has no value").or("write %s, or remove the key", what))
	case want == yaml.SequenceNode && n.Kind == yaml.ScalarNode:
		r.add(a, bad("expected %s, found %s", what, describeNode(n)).or("put it in [brackets]"))
	default:
		r.add(a, bad("expected %s, found %s", what, describeNode(n)))
	}
	return false
}

// scalar hands the text of a scalar to parse and reports whether the value is good. Where both the text and the YAML type
// are wrong, the text's problem is told: "90 has no unit" says more than "expected text".
func (r *reader) scalar(n *yaml.Node, a at, want takes, parse func(string) problem) bool {
	if n.Kind != yaml.ScalarNode {
		r.add(a, bad("expected %s, found %s", want, describeNode(n)))
		return false
	}
	if n.ShortTag() == "!!null" {
		r.add(a, bad("the key has no value").or("write %s, or remove the key", want))
		return false
	}
	if p := parse(n.Value); !p.none() {
		r.add(a, p)
		return false
	}
	have := takesOf(n.ShortTag())
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
	switch {
	case want&text != 0 && !quoted && yamlBoolean(n.Value):
		r.add(a, bad("%s is a boolean to many YAML readers", n.Value).or("put it in quotes"))
	case want&have != 0:
		return true
	case want&text != 0:
		r.add(a, bad("expected %s, found %s", want, describeNode(n)).or("put it in quotes"))
	default:
		r.add(a, bad("expected %s, found %s", want, describeNode(n)).or("remove the quotes"))
	}
	return false
}

func takesOf(tag string) takes {
	switch tag {
	case "!!str":
		return text
	case "!!int":
		return integer
	case "!!bool":
		return boolean
	}
	return 0
}

// yamlBoolean knows the booleans of YAML 1.1, which readers still differ on.
func yamlBoolean(s string) bool {
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off", "true", "false":
		return true
	}
	return false
}

// nearest finds the word that a typing mistake was meant to be, or "".
func nearest(s string, words []string) string {
	fold := strings.NewReplacer("-", "", "_", "", ".", "")
	best, least := "", 1+min(2, len(s)/3)
	for _, w := range words {
		if strings.EqualFold(fold.Replace(s), fold.Replace(w)) {
			return w
		}
		if d := distance(s, w, least); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance is Levenshtein's, with two neighbors that changed places as one mistake; given up at limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := last[j]
			if a[i] != b[j] {
				cost = 1 + min(last[j], row[j], last[j+1])
			}
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				cost = min(cost, before[j-1]+1)
			}
			row[j+1] = cost
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
