package config

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
)

// setFile is a set file that was read once.
type setFile struct {
	contents []byte
	prefixes []netip.Prefix
}

func (b *builder) sets(raw []rawSet) {
	b.names["self"] = at{}
	for i := range raw {
		r := &raw[i]
		b.unique(b.names, string(r.Name.v), r.Name.ok, r.Name.at, "name")
		if !r.Prefixes.written() && !r.Files.written() {
			b.add(r.at, bad("the set has neither prefixes nor files"))
		}
		out := Set{Name: string(r.Name.v), Prefixes: prefixes(r.Prefixes), Pos: r.pos}
		once := map[string]at{}
		for _, f := range r.Files.items {
			b.unique(once, string(f.v), f.ok, f.at, "file")
			if f.ok {
				out.Prefixes = append(out.Prefixes, b.readSet(f).prefixes...)
			}
		}
		var have families
		for _, p := range out.Prefixes {
			have |= familyOf(p.Addr())
		}
		if have == 0 {
			have = bothFamilies // empty today: nothing can be said of it
		}
		b.families[out.Name], b.owners[out.Name] = have, false
		b.cfg.Sets = append(b.cfg.Sets, out)
	}
}

// readSet reads a set file, once however many sets name it.
func (b *builder) readSet(f val[setPath]) *setFile {
	path := string(f.v)
	if known := b.files[path]; known != nil {
		return known
	}
	out := &setFile{}
	b.files[path] = out
	if b.src.ReadFile == nil {
		b.add(f.at, bad("cannot read %s: set files are not at hand here", path))
		return out
	}
	contents, err := b.src.ReadFile(path)
	var pathErr *fs.PathError
	switch {
	case errors.As(err, &pathErr):
		b.add(f.at, bad("cannot read %s: %v", pathErr.Path, pathErr.Err).or("paths are relative to the directory of this file"))
	case err != nil:
		b.add(f.at, bad("cannot read %s: %v", path, err))
	case len(contents) > maxSetFile:
		b.add(f.at, bad("%s is larger than %d MiB", path, maxSetFile>>20))
	default:
		out.contents = contents
		out.prefixes = b.lines(path, f.path, contents)
	}
	return out
}

// lines reads one prefix or address per line. What follows # or ; is comment.
func (b *builder) lines(file, path string, contents []byte) []netip.Prefix {
	var out []netip.Prefix
	contents = bytes.TrimPrefix(contents, []byte("\uFEFF"))
	number := 0
	for line := range bytes.Lines(contents) {
		number++
		if i := bytes.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		word := bytes.TrimSpace(line)
		if len(word) == 0 {
			continue
		}
		p, wrong := parseTarget(string(word[:min(len(word), 100)]))
		if bytes.ContainsAny(word, " \t") {
			wrong = bad("more than one word on a line").or("write one prefix or address per line")
		}
		if !wrong.none() {
			column := 1 + bytes.Index(line, word)
			b.add(at{Pos{file, number, column}, path}, wrong)
			continue
		}
		out = append(out, p)
	}
	return out
}

func (b *builder) workloads(raw []rawWorkload) {
	owners := map[string]at{}
	for i := range raw {
		r := &raw[i]
		b.unique(b.names, string(r.Name.v), r.Name.ok, r.Name.at, "name")
		b.unique(b.links, string(r.Interface.v), r.Interface.ok, r.Interface.at, "interface")
		if r.Addresses.empty() {
			b.add(r.Addresses.at, bad("the workload has no address"))
		}
		out := Workload{Name: string(r.Name.v), Interface: string(r.Interface.v), Pos: r.pos}
		var have families
		for _, a := range r.Addresses.items {
			b.unique(owners, a.v.String(), a.ok, a.at, "workload address")
			out.Addresses = append(out.Addresses, a.v.Addr)
			have |= familyOf(a.v.Addr)
		}
		if r.Addresses.unsure() || slices.ContainsFunc(r.Addresses.items, func(a val[singleAddress]) bool { return !a.ok }) {
			have = bothFamilies
		}
		b.families[out.Name], b.owners[out.Name] = have, true
		b.cfg.Workloads = append(b.cfg.Workloads, out)
	}
}

// dangling says that a name is nobody's.
func (b *builder) dangling(text string) problem {
	p := bad("no set or workload is named %q", text)
	if b.counts[b.file] > 10*maxShown {
		return p // nobody will read the hint, and each costs a comparison with every name
	}
	var all []string
	for known := range b.names {
		all = append(all, known)
	}
	slices.Sort(all)
	if near := nearest(text, all); near != "" {
		return p.or("did you mean %s?", near)
	}
	return p.or("write a prefix, self, or the name of a set or workload")
}
