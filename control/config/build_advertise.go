package config

import (
	"net/netip"
	"slices"
	"strings"
)

// peers are the neighbors by what entries may call them.
type peers struct {
	*builder
	named    map[string][]string // a name or a group's -> names of neighbors, in the order of the file
	all      []string
	internal map[string]bool // of our own AS
	address  map[string]netip.Addr
	sure     bool // all of the neighbors could be read
}

func (b *builder) peers(r *rawBGP, out *BGP) *peers {
	p := &peers{builder: b, named: map[string][]string{}, internal: map[string]bool{}, address: map[string]netip.Addr{}, sure: !r.Neighbors.unsure()}
	for i, n := range r.Neighbors.items {
		if g := string(n.Group.v); n.Group.ok {
			p.named[g] = append(p.named[g], string(n.Name.v))
		}
		p.all = append(p.all, string(n.Name.v))
		p.internal[string(n.Name.v)] = out.Neighbors[i].ASN == out.ASN
		p.address[string(n.Name.v)] = out.Neighbors[i].Address
		p.sure = p.sure && n.Name.ok && out.Neighbors[i].ASN != 0
	}
	for _, name := range p.all { // where a group has the name too, the neighbor is meant
		p.named[name] = []string{name}
	}
	return p
}

// entryOrKey is what to do about a list of neighbors that names none, where all are meant without it.
const entryOrKey = "remove the entry, or the key for all of them"

// find turns names into those of neighbors; nil for a list that is not written.
func (p *peers) find(l list[val[name]], none problem) []string {
	if l.empty() {
		p.add(l.at, none)
	}
	var out []string
	seen := map[string]at{}
	for _, n := range l.items {
		p.unique(seen, string(n.v), n.ok, n.at, "neighbor")
		found := p.named[string(n.v)]
		if n.ok && found == nil && p.sure {
			problem := bad("no neighbor is named %s, nor a group that has some", n.v)
			if near := nearest(string(n.v), p.all); near != "" {
				problem = problem.or("did you mean %s?", near)
			} else if len(p.all) > 0 {
				problem = problem.or("the neighbors are %s", strings.Join(p.all, ", "))
			}
			p.add(n.at, problem)
		}
		for _, name := range found {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

func (p *peers) advertise(r *rawAdvertise) Advertise {
	p.one(r)
	out := Advertise{
		Prefixes: prefixes(r.Prefixes), Workloads: bool(r.Workloads.v), Tunnels: bool(r.Tunnels.v),
		Aggregate: r.Aggregate.v.Prefix, SummaryOnly: bool(r.SummaryOnly.v), To: p.find(r.To, bad("the entry is for no neighbor").or(entryOrKey)),
		When: p.when(&r.When), LargeCommunities: largeCommunities(r.LargeCommunities),
		LocalPreference: uint32(r.LocalPreference.v), Prepend: int(r.Prepend.v), NextHop: r.NextHop.v.Addr, Pos: r.pos,
	}
	out.Communities = communities(r.Communities)
	if r.MED.ok {
		value := uint32(r.MED.v)
		out.MED = &value
	}
	p.useful(r, &out)
	p.elsewhere(r, &out)
	p.forwardable(r)
	return out
}

// one wants an entry to be about one thing.
func (p *peers) one(r *rawAdvertise) {
	kinds := 0
	for _, a := range []at{r.Prefixes.at, r.Workloads.at, r.Tunnels.at, r.Aggregate.at} {
		if a.written() {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		p.add(r.at, bad("an entry advertises either prefixes, workloads, tunnels or an aggregate"))
	case r.Workloads.ok && !bool(r.Workloads.v):
		p.add(r.Workloads.at, bad("workloads: false advertises nothing").or("remove the entry"))
	case r.Tunnels.ok && !bool(r.Tunnels.v):
		p.add(r.Tunnels.at, bad("tunnels: false advertises nothing").or("remove the entry"))
	case r.Prefixes.empty():
		p.add(r.Prefixes.at, bad("the entry advertises nothing").or("remove it"))
	}
	if r.SummaryOnly.written() && !r.Aggregate.written() {
		p.add(r.SummaryOnly.at, bad("only an aggregate has longer prefixes to hold back").or("write aggregate: PREFIX, or remove the key"))
	}
	seen := map[string]at{}
	for _, v := range r.Prefixes.items {
		p.unique(seen, v.v.String(), v.ok, v.at, "prefix")
	}
}

// useful reports attributes that no neighbor of the entry would ever see.
func (p *peers) useful(r *rawAdvertise, out *Advertise) {
	to := out.To
	if to == nil {
		to = p.all
	}
	inside, outside := false, false
	for _, name := range to {
		inside, outside = inside || p.internal[name], outside || !p.internal[name]
	}
	if r.LocalPreference.ok && !inside && p.sure && len(to) > 0 {
		p.add(r.LocalPreference.at, bad("a local preference stays inside our own AS, and no neighbor of the entry is in it").or("use med, prepend or communities towards other ASes"))
	}
	if r.Prepend.ok && !outside && p.sure && len(to) > 0 {
		p.add(r.Prepend.at, bad("inside our own AS a prepended path looks like a loop, and all neighbors of the entry are in it").or("use local_preference"))
	}
	if hop := out.NextHop; hop.IsValid() && (r.Prefixes.whole || r.Aggregate.ok) {
		fits := func(x netip.Prefix) bool { return familyOf(x.Addr()) == familyOf(hop) }
		if !slices.ContainsFunc(out.Prefixes, fits) && !(r.Aggregate.ok && fits(out.Aggregate)) {
			p.add(r.NextHop.at, bad("next hop %s is %s, and no prefix of the entry is", hop, familyOf(hop)))
		}
	}
}

// elsewhere reports a next hop that is the neighbor itself: it must not be told that (RFC 4271 section 5.1.3), and would not believe it.
func (p *peers) elsewhere(r *rawAdvertise, out *Advertise) {
	to := out.To
	if to == nil {
		to = p.all
	}
	for _, name := range to {
		if out.NextHop.IsValid() && p.address[name].WithZone("") == out.NextHop {
			p.add(r.NextHop.at, bad("next hop %s is neighbor %s itself, which the entry goes to, and which would drop the route", out.NextHop, name).
				or("write another next hop, or to: with the other neighbors"))
		}
	}
}

// forwardable reports prefixes that no router forwards to.
func (p *peers) forwardable(r *rawAdvertise) {
	for _, v := range append(r.Prefixes.items[:len(r.Prefixes.items):len(r.Prefixes.items)], r.Aggregate) {
		what := ""
		switch a := v.v.Addr(); {
		case !v.ok:
		case a.IsMulticast():
			what = "multicast"
		case a.IsLoopback() && v.v.Bits() > 0:
			what = "loopback"
		case a.Is6() && a.IsLinkLocalUnicast():
			what = "link-local"
		}
		if what != "" {
			p.add(v.at, bad("%s is %s: no neighbor forwards to it", v.v, what).or("remove it"))
		}
	}
}

func (p *peers) when(r *rawWhen) When {
	if r.written() && !r.Workloads.written() && !r.Reach.written() {
		p.add(r.at, bad("there is nothing to wait for").or("write workloads: [NAME] or reach: [ADDRESS], or remove the key"))
	}
	var out When
	seen := map[string]at{}
	if r.Workloads.empty() {
		p.add(r.Workloads.at, bad("the list is empty, so the entry would never be advertised").or("remove the key"))
	}
	for _, n := range r.Workloads.items {
		p.unique(seen, string(n.v), n.ok, n.at, "workload")
		if n.ok {
			out.Workloads = append(out.Workloads, string(n.v)) // it may be one that the API adds
		}
	}
	if r.Reach.empty() {
		p.add(r.Reach.at, bad("the list is empty, so the entry would never be advertised").or("remove the key"))
	}
	for _, a := range r.Reach.items {
		p.unique(seen, a.v.String(), a.ok, a.at, "address")
		if a.ok {
			out.Reach = append(out.Reach, a.v.Addr)
		}
	}
	return out
}

// once reports a prefix that an earlier entry announces already, to the same neighbor and whatever happens. After an entry
// that waits for something another may follow for the time when it does not hold.
func (p *peers) once(raw []rawAdvertise, entries []Advertise) {
	first := map[string]claim{} // by prefix and neighbor
	for i, e := range entries {
		to := e.To
		if to == nil {
			to = append([]string{""}, p.all...)
		}
		for _, v := range raw[i].Prefixes.items {
			if v.ok {
				p.claim(first, claim{v.at, i}, v.v.String(), to, e.When.Always())
			}
		}
	}
}

// claim is where an entry takes a prefix for a neighbor.
type claim struct {
	at
	entry int
}

func (p *peers) claim(first map[string]claim, now claim, prefix string, to []string, always bool) {
	for _, name := range to {
		key := prefix + " " + name
		before, taken := first[key]
		switch {
		case taken && before.entry != now.entry:
			problem := bad("duplicate prefix %q", prefix)
			if name != "" {
				problem = bad("duplicate prefix %q for neighbor %s", prefix, name)
			}
			p.add(now.at, problem.or("the first stands at %s", place(before.at)))
			return
		case always:
			first[key] = now
		}
	}
}

func communities(l list[val[community]]) []uint32 {
	var out []uint32
	for _, c := range good(l) {
		out = append(out, uint32(c))
	}
	return out
}

func largeCommunities(l list[val[largeCommunity]]) []LargeCommunity {
	var out []LargeCommunity
	for _, c := range good(l) {
		out = append(out, c.LargeCommunity)
	}
	return out
}
