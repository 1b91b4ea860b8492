package config

const (
	defaultBGPPort     port   = 179
	defaultLearnMetric metric = 20
)

func (b *builder) bgp(r *rawBGP) {
	if !r.written() {
		return
	}
	reservedASN(r.ASN, b.add)
	out := &BGP{ASN: uint32(r.ASN.v), RouterID: r.RouterID.v.Addr, Listen: uint16(r.Listen.or(defaultBGPPort)), Pos: r.pos}
	groups := b.groups(r)
	names, addresses := map[string]at{}, map[string]at{}
	for i := range r.Neighbors.items {
		n := &r.Neighbors.items[i]
		b.unique(names, string(n.Name.v), n.Name.ok, n.Name.at, "neighbor")
		b.unique(addresses, n.Address.v.String(), n.Address.ok, n.Address.at, "neighbor address")
		out.Neighbors = append(out.Neighbors, groups.neighbor(n))
	}
	prefixes := map[string]at{}
	for i := range r.Advertise.items {
		out.Advertise = append(out.Advertise, b.advertise(&r.Advertise.items[i], prefixes))
	}
	out.Learn = Learn{ECMP: int(r.Learn.ECMP.or(1)), Metric: int(r.Learn.Metric.or(defaultLearnMetric))}
	for i := range r.Learn.Accept.items {
		out.Learn.Accept = append(out.Learn.Accept, b.prefixMatch(&r.Learn.Accept.items[i]))
	}
	b.cfg.BGP = out
}

// reservedASN reports numbers that no network may have: RFC 6793 section 9 (AS_TRANS), RFC 7300.
func reservedASN(v num[asn], add func(at, problem)) {
	switch v.v {
	case 23456, 65535, 4294967295:
		add(v.at, bad("ASN %d is reserved", v.v))
	}
}

func (b *builder) advertise(r *rawAdvertise, seen map[string]at) Advertise {
	switch {
	case r.Workloads.written() == r.Prefixes.written():
		b.add(r.at, bad("an entry advertises either prefixes or workloads"))
	case r.Workloads.ok && !bool(r.Workloads.v):
		b.add(r.Workloads.at, bad("workloads: false advertises nothing").or("remove the entry"))
	case r.Prefixes.empty():
		b.add(r.Prefixes.at, bad("the entry advertises nothing").or("remove it"))
	}
	for _, p := range r.Prefixes.items {
		b.unique(seen, p.v.String(), p.ok, p.at, "prefix")
	}
	out := Advertise{Prefixes: prefixes(r.Prefixes), Workloads: bool(r.Workloads.v), Pos: r.pos}
	for _, c := range good(r.Communities) {
		out.Communities = append(out.Communities, uint32(c))
	}
	return out
}

// prefixMatch fills in the bounds that are not written: none means exact, ge alone goes to the longest prefix, le alone
// begins at the prefix itself.
func (b *builder) prefixMatch(r *rawPrefixMatch) PrefixMatch {
	if !r.Prefix.ok {
		return PrefixMatch{}
	}
	p := r.Prefix.v.Prefix
	out := PrefixMatch{Prefix: p, GE: p.Bits(), LE: p.Bits()}
	if r.GE.written() {
		out.GE, out.LE = int(r.GE.v), p.Addr().BitLen()
	}
	if r.LE.written() {
		out.LE = int(r.LE.v)
	}
	readable := (r.GE.ok || !r.GE.written()) && (r.LE.ok || !r.LE.written())
	if readable && !(p.Bits() <= out.GE && out.GE <= out.LE && out.LE <= p.Addr().BitLen()) {
		b.add(r.at, bad("lengths %d to %d do not fit %s", out.GE, out.LE, p).or("write %d <= ge <= le <= %d", p.Bits(), p.Addr().BitLen()))
	}
	return out
}
