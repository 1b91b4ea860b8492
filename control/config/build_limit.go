package config

// sourceIPv6 is how long a prefix of IPv6 is one source: a host has a /64 for itself, and may send from every address of it.
const sourceIPv6 = 64

// maxBurst is how long, in seconds, a burst may take to come again at the rate.
const maxBurst = 86400

// limit reads limit: of a rule, and reports one without the action, or the action without it.
func (b *builder) limit(r *rawRule) *Limit {
	raw := &r.Limit
	switch {
	case r.Action.ok && r.Action.v == ActionLimit && !raw.written():
		b.add(r.Action.at, bad("the limit is missing").or("write limit: {rate: 10kpps}"))
		return nil
	case r.Action.ok && r.Action.v != ActionLimit && raw.written():
		b.add(raw.at, bad("only a rule with action: limit has a limit, and this one's is %s", r.Action.v))
		return nil
	case !raw.written():
		return nil
	}
	source := raw.Per.v == perSource
	out := &Limit{Rate: raw.Rate.v.perSecond, Bits: raw.Rate.v.bits, PerSource: source, IPv4Prefix: int(raw.IPv4Prefix.or(32)), IPv6Prefix: 128}
	if source {
		out.IPv6Prefix = int(raw.IPv6Prefix.or(sourceIPv6))
	}
	for _, length := range []at{raw.IPv4Prefix.at, raw.IPv6Prefix.at} {
		if length.written() && !source && (raw.Per.ok || !raw.Per.written()) {
			b.add(length, bad("a prefix length is of a source").or("write per: source"))
		}
	}
	if raw.Rate.ok {
		out.Burst = b.burst(raw, out)
	}
	return out
}

// burst is what the file says, or 100 ms of the rate, at least ten packets or ten full frames.
func (b *builder) burst(raw *rawLimit, l *Limit) uint64 {
	perSecond, unit := l.Rate, "packets, such as 20kp"
	least := uint64(10)
	if l.Bits {
		perSecond, unit, least = l.Rate/8, "bytes, such as 1MB", 10*1518
	}
	if !raw.Burst.written() {
		return max(perSecond/10, least)
	}
	have := raw.Burst.v
	switch {
	case !raw.Burst.ok:
		return 0
	case have.bytes != l.Bits:
		b.add(raw.Burst.at, bad("the rate and the burst are of different units").or("write the burst in %s", unit))
	case have.amount > maxBurst*perSecond:
		b.add(raw.Burst.at, bad("the burst is more than a day of the rate").or("it takes %d s to come again", have.amount/perSecond))
	}
	return have.amount
}
