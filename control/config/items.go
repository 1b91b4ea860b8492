package config

import "slices"

// Rules are judged piece by piece, since there may be 100,000. Peers are some thousands, and are judged together: of a piece of theirs
// only the way from the text to raw structs is spared.

// items are the raw structs of one piece, a []T. The places in them are those of the file that it was read from.
type items struct {
	list any
	line int // that the piece began in
}

// itemReader fills lists that were cut out.
type itemReader struct {
	*reader   // its own: what it says does not matter, but that it says something
	known     memory
	found     map[fingerprint]items // of this file
	uncertain bool                  // the file has to be read as a whole
}

func newItemReader(file string, known memory) *itemReader {
	own := newReader(newReport(file))
	own.pathless = true
	return &itemReader{reader: own, known: known, found: map[fingerprint]items{}}
}

// itemsOf are all items of a list. Of what was read before only the places of the items themselves are moved to where they stand
// now: those inside are for errors, with which a file is read as a whole, but for what an item moves itself.
func itemsOf[T any](r *itemReader, c *cut) []T {
	out := make([]T, 0, c.items)
	for i := range c.pieces {
		p := &c.pieces[i]
		print := r.known.fingerprint(p.text, 0) // no policy judges peers
		before, known := r.known.items[print]
		list, same := before.list.([]T)
		if !known || !same {
			before.line = p.line
			if list = piecesItems[T](r, p); r.uncertain {
				return out
			}
		}
		if lines := p.line - before.line; lines != 0 {
			list = slices.Clone(list) // a former reading's
			for k := range list {
				any(&list[k]).(interface{ shift(lines int) }).shift(lines)
			}
		}
		r.found[print] = items{list, p.line}
		out = append(out, list...)
	}
	return out
}

func piecesItems[T any](r *itemReader, p *piece) []T {
	nodes, err := r.nodes(p)
	if err != nil {
		r.uncertain = true
		return nil
	}
	out := make([]T, len(nodes))
	for i, node := range nodes {
		r.into(&out[i], node, r.at(node, root))
	}
	r.uncertain = len(r.list) > 0
	return out
}
