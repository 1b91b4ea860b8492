package config

import (
	"time"
)

const (
	defaultBGPPort     port = 179
	defaultHoldTime         = 90 * time.Second // RFC 4271 section 10
	defaultRestartTime      = 120 * time.Second
	defaultLearnMetric      = 20
	minHoldTime             = 3 * time.Second     // RFC 4271 section 4.2
	maxHoldTime             = 65535 * time.Second // 16 bits
	maxRestartTime          = 4095 * time.Second  // 12 bits, RFC 4724 section 3

	defaultBFDInterval              = 300 * time.Millisecond
	defaultBFDMultiplier detectMult = 3
	minBFDInterval                  = 50 * time.Millisecond // below, the scheduler of a busy machine decides
	maxBFDInterval                  = time.Minute
)

func (b *builder) bgp(r *rawBGP) {
	if !r.written() {
		return
	}
	b.asn(r.ASN)
	out := &BGP{ASN: uint32(r.ASN.v), RouterID: r.RouterID.v.Addr, Listen: uint16(r.Listen.or(defaultBGPPort)), Pos: r.pos}
	names, addresses := map[string]at{}, map[string]at{}
	for i := range r.Neighbors.items {
		n := &r.Neighbors.items[i]
		b.unique(names, string(n.Name.v), n.Name.ok, n.Name.at, "neighbor")
		b.unique(addresses, n.Address.v.String(), n.Address.ok, n.Address.at, "neighbor address")
		out.Neighbors = append(out.Neighbors, b.neighbor(n))
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

// asn reports numbers that no network may have: RFC 6793 section 9 (AS_TRANS), RFC 7300.
func (b *builder) asn(v num[asn]) {
	switch v.v {
	case 23456, 65535, 4294967295:
		b.add(v.at, bad("ASN %d is reserved", v.v))
	}
}

func (b *builder) neighbor(r *rawNeighbor) Neighbor {
	b.asn(r.ASN)
	if r.Address.ok && r.Address.v.IsLinkLocalUnicast() {
		b.add(r.Address.at, bad("neighbor %s is link-local, and a neighbor cannot name its interface", r.Address.v).
			or("use a global address of the neighbor"))
	}
	out := Neighbor{Name: string(r.Name.v), Address: r.Address.v.Addr, Port: uint16(r.Port.or(defaultBGPPort)), ASN: uint32(r.ASN.v),
		PasswordFile: string(r.PasswordFile.v), HoldTime: defaultHoldTime, MaxPrefixes: uint32(r.MaxPrefixes.v), Pos: r.pos}
	seen := map[string]at{}
	for _, f := range r.Families.items {
		b.unique(seen, string(f.v), f.ok, f.at, "family")
		out.Families = append(out.Families, f.v)
	}
	switch {
	case r.Families.empty():
		b.add(r.Families.at, bad("the session would carry no family").or("remove the key for the family of the address"))
	case !r.Families.written() && r.Address.v.Is4():
		out.Families = []Family{IPv4Unicast}
	case !r.Families.written():
		out.Families = []Family{IPv6Unicast}
	}
	if r.HoldTime.ok {
		out.HoldTime = time.Duration(r.HoldTime.v)
		if out.HoldTime != 0 && (out.HoldTime < minHoldTime || !wholeSeconds(out.HoldTime, maxHoldTime)) {
			b.add(r.HoldTime.at, bad("hold time %s is not allowed", out.HoldTime).or("write 3s to 65535s in whole seconds, or 0s for no keepalives"))
		}
	}
	if r.GracefulRestart.written() {
		out.RestartTime = defaultRestartTime
	}
	if t := r.GracefulRestart.RestartTime; t.ok {
		out.RestartTime = time.Duration(t.v)
		if out.RestartTime == 0 || !wholeSeconds(out.RestartTime, maxRestartTime) {
			b.add(t.at, bad("restart time %s is not allowed", out.RestartTime).or("write 1s to 4095s in whole seconds"))
		}
	}
	out.BFD = b.bfd(&r.BFD)
	return out
}

func (b *builder) bfd(r *rawBFD) BFD {
	if !r.written() {
		return BFD{}
	}
	out := BFD{Interval: defaultBFDInterval, Multiplier: uint8(r.Multiplier.or(defaultBFDMultiplier))}
	if r.Interval.ok {
		out.Interval = time.Duration(r.Interval.v)
		if out.Interval < minBFDInterval || out.Interval > maxBFDInterval || out.Interval%time.Microsecond != 0 {
			b.add(r.Interval.at, bad("interval %s is not allowed", out.Interval).or("write %s to %s", minBFDInterval, maxBFDInterval))
		}
	}
	return out
}

func wholeSeconds(d, most time.Duration) bool { return d <= most && d%time.Second == 0 }

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
