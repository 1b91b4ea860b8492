package config

const defaultLearnMetric = 20

func (p *peers) learn(r *rawLearn) Learn {
	out := Learn{ECMP: int(r.ECMP.or(1)), Metric: int(r.Metric.or(defaultLearnMetric)), Table: int(r.Table.v)}
	for i := range r.Reject.items {
		out.Reject = append(out.Reject, p.filter(&r.Reject.items[i]))
	}
	for i := range r.Accept.items {
		one := r.Accept.items[i].filter()
		f := p.filter(&one)
		f.LocalPreference = uint32(r.Accept.items[i].Set.LocalPreference.v)
		out.Accept = append(out.Accept, f)
	}
	if r.Reject.written() && !r.Accept.any() && !r.Accept.unsure() {
		p.add(r.Reject.at, bad("nothing is accepted, so there is nothing to reject").or("write accept: as well"))
	}
	return out
}

func (p *peers) filter(r *rawFilter) Filter {
	criteria := []at{r.Prefix.at, r.From.at, r.ASPath.at, r.Communities.at, r.LargeCommunities.at}
	said := false
	for _, a := range criteria {
		said = said || a.written()
	}
	switch {
	case !r.Prefix.written() && (r.GE.written() || r.LE.written()):
		p.add(r.at, bad("`prefix` is missing: lengths are of prefixes inside one").or("write prefix: 0.0.0.0/0 or \"::/0\" for all of a family"))
	case !said:
		p.add(r.at, bad("`prefix` is missing").or("write what is matched: prefix, from, as_path, communities or large_communities"))
	}
	for _, l := range []struct {
		at
		empty bool
	}{{r.Communities.at, r.Communities.empty()}, {r.LargeCommunities.at, r.LargeCommunities.empty()}} {
		if l.empty {
			p.add(l.at, bad("the list is empty, and so says nothing").or("remove the key"))
		}
	}
	return Filter{
		PrefixMatch: p.prefixMatch(r), From: p.find(r.From, bad("the entry is about no neighbor").or(entryOrKey)), ASPath: string(r.ASPath.v),
		Communities: communities(r.Communities), LargeCommunities: largeCommunities(r.LargeCommunities), Pos: r.pos,
	}
}

// prefixMatch fills in the bounds that are not written: none means exact, ge alone goes to the longest prefix, le alone
// begins at the prefix itself.
func (p *peers) prefixMatch(r *rawFilter) PrefixMatch {
	if !r.Prefix.ok {
		return PrefixMatch{}
	}
	prefix := r.Prefix.v.Prefix
	out := PrefixMatch{Prefix: prefix, GE: prefix.Bits(), LE: prefix.Bits()}
	if r.GE.written() {
		out.GE, out.LE = int(r.GE.v), prefix.Addr().BitLen()
	}
	if r.LE.written() {
		out.LE = int(r.LE.v)
	}
	readable := (r.GE.ok || !r.GE.written()) && (r.LE.ok || !r.LE.written())
	if readable && !(prefix.Bits() <= out.GE && out.GE <= out.LE && out.LE <= prefix.Addr().BitLen()) {
		p.add(r.at, bad("lengths %d to %d do not fit %s", out.GE, out.LE, prefix).or("write %d <= ge <= le <= %d", prefix.Bits(), prefix.Addr().BitLen()))
	}
	return out
}
