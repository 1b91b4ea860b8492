package config

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A long list of rules, or of a tunnel's peers, is read in pieces: its items are cut out of the file by their indentation, bundles of them go
// through the YAML library by themselves, and the rest of the file, the skeleton, has [] in the place of the list. So
// there is never a tree of nodes of the whole file, pieces are read side by side, and one that was read before is not
// read again (cache.go).
//
// What is cut is only believed where both ways of reading must agree:
//
//   - The skeleton has the placeholder exactly where it was put, as the value of a key in a block mapping. So the text in
//     front of the list is complete there: the key stands in no quotes, no brackets and no block scalar.
//   - Every piece is one block sequence of as many items as were cut. So it is complete, too: what opens in a piece closes
//     in it, and neither a plain nor a block scalar goes on in a line that is indented no more than the items.
//   - There is no error of any kind. With one, the file is read as a whole, which is what finds the words.

// grain says how text is cut.
type grain struct {
	least int    // bytes: a shorter file is read as a whole, and a shorter list of rules stays in the skeleton
	peers int    // bytes: so does a shorter list of peers, of which there may be a short one for each of many tunnels
	mask  uint32 // a piece begins at an item whose line has these bits of its checksum clear, one in mask+1 on average
	items int    // at most, in a piece
	bytes int    // after which the next item begins a piece
}

// coarse makes pieces of some 64 rules, or 16 peers. Where they begin follows from the text alone and not from what stands before it:
// a line more or less moves no other boundary.
func coarse() grain {
	return grain{least: 32 << 10, peers: 1 << 10, mask: 63, items: 256, bytes: 64 << 10}
}

// cut is a list that was cut out of a file.
type cut struct {
	key    string
	line   int // of its key, and of the placeholder
	indent int // columns in front of the key
	begin  int // of the first item, in the file
	items  int
	pieces []piece
}

// piece is some items of a list, as text.
type piece struct {
	text   []byte
	line   int // that it begins in
	indent int // columns in front of its items
	items  int
}

// Keys of lists that are cut out.
const (
	rulesKey = "rules:"
	peersKey = "peers:"
)

// Skeleton is a file without its long lists of rules and peers, with as many lines: for who looks for something else in it.
func Skeleton(contents []byte) []byte {
	skeleton, _ := cutLists(contents, coarse())
	return skeleton
}

// cutLists takes the long lists of rules and peers out of a file, by the line of their key. The skeleton has as many lines as the
// file.
func cutLists(contents []byte, g grain) (skeleton []byte, cuts map[int]*cut) {
	cuts = map[int]*cut{}
	if len(contents) < g.least || oddLines(contents) {
		return contents, cuts
	}
	kept := 0 // what stands before is in the skeleton
	for s := (lines{text: contents}); s.next(); {
		word, least, of := s.listKey(), g.least, g
		switch word {
		case "":
			continue
		case peersKey:
			least, of.mask = g.peers, g.mask/4 // a peer takes as long to read as some rules
		}
		key := s
		c := &cut{key: word, line: key.number, indent: key.indent}
		certain := c.take(&s, of)
		if certain && s.begin-key.end >= least {
			here := key.begin + key.indent + len(word)
			skeleton = append(skeleton, contents[kept:here]...)
			skeleton = append(skeleton, " []"...)
			skeleton = append(skeleton, contents[here:c.begin]...) // comments
			skeleton = append(skeleton, bytes.Repeat([]byte{'\n'}, s.number-c.pieces[0].line)...)
			cuts[c.line], kept = c, s.begin
		}
		s.again()
	}
	return append(skeleton, contents[kept:]...), cuts
}

// take collects the items behind a key, up to the line that belongs to the list no more, where s stands then. False: it
// is not certain that this is a list, or where it ends.
func (c *cut) take(s *lines, g grain) bool {
	indent, begin := -1, 0 // of the items, and of the last piece
	for s.next() {
		switch {
		case s.first() == '\n' || s.first() == '\r' || s.first() == '#':
			continue // of whatever stands before: a piece holds all lines up to the next one
		case s.first() == '\t':
			return false
		case indent < 0 && (s.indent < c.indent || !s.isItem()):
			return false
		case indent >= 0 && s.indent > indent:
			continue
		case indent >= 0 && (s.indent < indent || !s.isItem()):
			c.close(s.text[begin:s.begin])
			return s.indent <= c.indent
		}
		if indent < 0 {
			indent, c.begin, begin = s.indent, s.begin, s.begin
		}
		last := len(c.pieces) - 1
		if last < 0 || c.pieces[last].items == g.items || s.begin-begin >= g.bytes || s.sum()&g.mask == 0 {
			c.close(s.text[begin:s.begin])
			c.pieces, begin = append(c.pieces, piece{line: s.number, indent: indent}), s.begin
			last++
		}
		c.pieces[last].items++
		c.items++
	}
	c.close(s.text[begin:s.begin])
	return indent >= 0
}

// close gives the last piece its text.
func (c *cut) close(text []byte) {
	if n := len(c.pieces); n > 0 {
		c.pieces[n-1].text = text
	}
}

// placed counts the placeholders that the YAML library found where they were put, each the value of its key in a block
// mapping.
func placed(n *yaml.Node, cuts map[int]*cut) int {
	found := 0
	for i, value := range n.Content {
		if c := cuts[value.Line]; c != nil && n.Kind == yaml.MappingNode && i%2 == 1 && n.Style&yaml.FlowStyle == 0 {
			key := n.Content[i-1]
			if key.Line == c.line && key.Column == c.indent+1 && c.heldBy(value) {
				found++
			}
		}
		found += placed(value, cuts)
	}
	return found
}

// heldBy says whether a node is the placeholder.
func (c *cut) heldBy(n *yaml.Node) bool {
	return n.Kind == yaml.SequenceNode && n.Line == c.line && n.Column == c.indent+len(c.key)+2 && len(n.Content) == 0
}

// oddLines says whether YAML may see other lines than we do: it ends them at a lone CR, at NEL, LS and PS, too, and
// passes over a byte order mark in front of one.
func oddLines(contents []byte) bool {
	if bytes.IndexByte(contents, '\r') < 0 && ascii(contents) {
		return false
	}
	for _, mark := range []string{"\u0085", "\u2028", "\u2029", "\uFEFF"} {
		if bytes.Contains(contents[min(3, len(contents)):], []byte(mark)) {
			return true
		}
	}
	return bytes.Count(contents, []byte{'\r'}) != bytes.Count(contents, []byte("\r\n"))
}

func ascii(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.NativeEndian.Uint64(b)&0x8080808080808080 != 0 {
			return false
		}
	}
	return !slices.ContainsFunc(b, func(c byte) bool { return c >= utf8.RuneSelf })
}

// lines walks over the lines of a text.
type lines struct {
	text       []byte
	begin, end int // of the line, its newline included
	number     int // counted from 1
	indent     int // blanks in front
}

func (s *lines) next() bool {
	s.begin, s.number = s.end, s.number+1
	if s.begin == len(s.text) {
		return false
	}
	rest := s.text[s.begin:]
	s.end = len(s.text)
	if i := bytes.IndexByte(rest, '\n'); i >= 0 {
		s.end = s.begin + i + 1
	}
	for s.indent = 0; s.begin+s.indent < s.end && rest[s.indent] == ' '; s.indent++ {
	}
	return true
}

// again makes next return this line once more.
func (s *lines) again() { s.end, s.number = s.begin, s.number-1 }

// first is the first byte that is no blank: a newline, where there is none.
func (s *lines) first() byte {
	if s.begin+s.indent == s.end {
		return '\n'
	}
	return s.text[s.begin+s.indent]
}

// sum is a checksum of as much of the line as tells it from others.
func (s *lines) sum() uint32 { return crc32.ChecksumIEEE(s.text[s.begin:min(s.begin+64, s.end)]) }

// isItem says whether an item of a block sequence begins here.
func (s *lines) isItem() bool {
	after, ok := bytes.CutPrefix(s.text[s.begin+s.indent:s.end], []byte{'-'})
	return ok && (len(after) == 0 || after[0] == ' ' || after[0] == '\n' || after[0] == '\r')
}

// listKey is the key of a list that may be cut out, where its value stands in the lines below; "": it is none.
func (s *lines) listKey() string {
	for _, key := range []string{rulesKey, peersKey} {
		after, ok := bytes.CutPrefix(s.text[s.begin+s.indent:s.end], []byte(key))
		if !ok {
			continue
		}
		value := bytes.TrimLeft(after, " ")
		comment := len(value) > 0 && value[0] == '#' && len(value) < len(after)
		if comment || len(bytes.TrimSpace(value)) == 0 {
			return key
		}
	}
	return ""
}
