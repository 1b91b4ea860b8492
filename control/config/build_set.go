package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
)

func (b *builder) sets(raw []rawSet) {
	b.names["self"] = at{}
	watched := map[string]watchedFile{}
	for i := range raw {
		r := &raw[i]
		b.unique(b.names, string(r.Name.v), r.Name.ok, r.Name.at, "name")
		if !r.Prefixes.written() && !r.Files.written() {
			b.add(r.at, bad("the set has neither prefixes nor files"))
		}
		watch := bool(r.Watch.v)
		if watch && (r.Files.empty() || !r.Files.written()) {
			b.add(r.Watch.at, bad("the set has no files to watch").or("name them in files, or leave watch out"))
		}
		out := Set{Name: string(r.Name.v), Prefixes: prefixes(r.Prefixes), Pos: r.pos}
		have := familiesOf(out.Prefixes)
		once := map[string]at{}
		for _, f := range r.Files.items {
			b.unique(once, string(f.v), f.ok, f.at, "file")
			if !f.ok {
				continue
			}
			b.sameWatch(watched, f, watch)
			out.Files = append(out.Files, string(f.v))
			if watch {
				out.Watched = append(out.Watched, string(f.v))
			} else {
				file := b.readSet(f)
				out.Prefixes = joined(out.Prefixes, file.prefixes)
				have |= file.families
			}
		}
		if have == 0 || len(out.Watched) > 0 {
			have = bothFamilies // empty today, or other tomorrow: nothing can be said of it
		}
		b.families[out.Name], b.owners[out.Name] = have, false
		b.cfg.Sets = append(b.cfg.Sets, out)
	}
}

// watchedFile is how the first set that names a file uses it.
type watchedFile struct {
	at
	watch bool
}

// sameWatch wants a file watched by all sets that name it or by none: it has contents of the revision or of the moment.
func (b *builder) sameWatch(seen map[string]watchedFile, f val[setPath], watch bool) {
	first, known := seen[string(f.v)]
	if !known {
		seen[string(f.v)] = watchedFile{f.at, watch}
	} else if first.watch != watch {
		b.add(f.at, bad("%s is watched by one set and not by another", string(f.v)).or("write `watch: true` in both or in none; the other stands at %s", place(first.at)))
	}
}

func familiesOf(list []netip.Prefix) families {
	var have families
	for _, p := range list {
		have |= familyOf(p.Addr())
	}
	return have
}

// joined is both lists; a file may hold a million and most sets have nothing else, so then it is that one itself.
func joined(a, b []netip.Prefix) []netip.Prefix {
	if len(a) == 0 && len(b) > 0 {
		return slices.Clip(b)
	}
	return append(a, b...)
}

// readSet reads a set file, once however many sets name it.
func (b *builder) readSet(f val[setPath]) *setFile {
	path := string(f.v)
	if known := b.files[path]; known != nil {
		return known
	}
	if b.reader.read == nil {
		b.files[path] = &setFile{}
		b.add(f.at, bad("cannot read %s: set files are not at hand here", path))
		return b.files[path]
	}
	out := b.reader.get(path)
	b.files[path] = out
	if out.good {
		return out
	}
	if wrong := unreadable(path, out.contents, out.err); !wrong.none() {
		var pathErr *fs.PathError
		if errors.As(out.err, &pathErr) {
			wrong = wrong.or("paths are relative to the directory of this file")
		}
		b.add(f.at, wrong)
		return out
	}
	wrong := b.counts[path]
	out.prefixes = b.setLines(path, f.path, out.contents)
	out.lines, out.families = len(out.prefixes), familiesOf(out.prefixes)
	out.prefixes = sortedSet(out.prefixes)
	out.good = b.counts[path] == wrong
	return out
}

func (b *builder) workloads(raw []rawWorkload) {
	owners := map[string]at{}
	for i := range raw {
		r := &raw[i]
		b.unique(b.names, string(r.Name.v), r.Name.ok, r.Name.at, "name")
		b.unique(b.links, string(r.Interface.v), r.Interface.ok, r.Interface.at, "interface")
		if r.Interface.v == "lo" {
			b.add(r.Interface.at, bad("lo is the box's own").or("name the host side of the workload's veth or netkit"))
		}
		if r.Addresses.empty() {
			b.add(r.Addresses.at, bad("the workload has no address"))
		}
		out := Workload{Name: string(r.Name.v), Interface: string(r.Interface.v), Path: r.Path.or(PathRedirect), Bandwidth: uint64(r.Bandwidth.Egress.v),
			SNAT: r.SNAT.v.SNAT, Pos: r.pos}
		var have families
		for _, a := range r.Addresses.items {
			b.unique(owners, a.v.String(), a.ok, a.at, "workload address")
			if a.ok && (a.v.IsLoopback() || a.v.IsLinkLocalUnicast()) {
				b.add(a.at, bad("%s is no address that others can reach", a.v).or("remove it; the workload's gateway is 169.254.1.1 and fe80::1"))
			}
			out.Addresses = append(out.Addresses, a.v.Addr)
			have |= familyOf(a.v.Addr)
		}
		if r.Addresses.unsure() || slices.ContainsFunc(r.Addresses.items, func(a val[singleAddress]) bool { return !a.ok }) {
			have = bothFamilies
		}
		b.snatFamily(r.SNAT, have)
		b.families[out.Name], b.owners[out.Name] = have, true
		b.cfg.Workloads = append(b.cfg.Workloads, out)
	}
}

// dangling says that a name is nobody's.
func (b *builder) dangling(text string) problem {
	if looksLikeRange(text) {
		return bad("%q is a range", text).or("write it as prefixes")
	}
	p := bad("no set or workload is named %q", text)
	if b.counts[b.file] > 10*maxShown {
		return p // nobody will read the hint, and each costs a comparison with every name
	}
	if slices.Contains([]string{"any", "all", "everything", "world", "internet"}, strings.ToLower(text)) {
		return p.or("leave the key out: then every address matches")
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
