package config

import (
	"reflect"
	"time"
)

const (
	defaultHoldTime             = 90 * time.Second // RFC 4271 section 10
	defaultConnectRetry         = 2 * time.Second
	defaultRestartTime          = 120 * time.Second
	defaultRestartAfter         = 5 * time.Minute
	defaultWarnAt       percent = 80
	minHoldTime                 = 3 * time.Second     // RFC 4271 section 4.2
	maxHoldTime                 = 65535 * time.Second // 16 bits
	minConnectRetry             = 2 * time.Second     // GoBGP's
	maxConnectRetry             = time.Hour
	maxRestartTime              = 4095 * time.Second // 12 bits, RFC 4724 section 3
	minRestartAfter             = 10 * time.Second
	maxRestartAfter             = 24 * time.Hour

	defaultBFDInterval              = 300 * time.Millisecond
	defaultBFDMultiplier detectMult = 3
	minBFDInterval                  = 50 * time.Millisecond // below, the scheduler of a busy machine decides
	maxBFDInterval                  = time.Minute
)

// sessions builds neighbors from what they and their groups say.
type sessions struct {
	*builder
	asn    uint32
	groups map[string]*rawGroup
	told   map[at]bool // a group's mistake is told once, not for each of its neighbors
}

// groups collects the groups and judges each by itself: nobody need belong to one.
func (b *builder) groups(r *rawBGP) *sessions {
	s := &sessions{builder: b, asn: uint32(r.ASN.v), groups: map[string]*rawGroup{}, told: map[at]bool{}}
	names := map[string]at{}
	for i := range r.Groups.items {
		g := &r.Groups.items[i]
		b.unique(names, string(g.Name.v), g.Name.ok, g.Name.at, "group")
		s.oneHold(&g.rawSession)
		s.session(&g.rawSession, &Neighbor{})
		if s.groups[string(g.Name.v)] == nil {
			s.groups[string(g.Name.v)] = g
		}
	}
	return s
}

func (s *sessions) add(a at, p problem) {
	if !s.told[a] {
		s.builder.add(a, p)
	}
	s.told[a] = true
}

func (s *sessions) neighbor(r *rawNeighbor) Neighbor {
	s.oneHold(&r.rawSession)
	switch g := s.groups[string(r.Group.v)]; {
	case r.Group.ok && g == nil:
		s.add(r.Group.at, bad("there is no group %q", r.Group.v).or("name one of bgp.groups"))
	case r.Group.ok:
		inherit(reflect.ValueOf(&r.rawSession).Elem(), reflect.ValueOf(g.rawSession))
		fallthrough
	case !r.ASN.written() && !r.Group.written():
		if !r.ASN.written() {
			s.add(r.at, bad("`asn` is missing").or("write it here or in the neighbor's group"))
		}
	}
	if r.Address.ok && r.Address.v.IsLinkLocalUnicast() {
		s.add(r.Address.at, bad("neighbor %s is link-local, and a neighbor cannot name its interface", r.Address.v).
			or("use a global address of the neighbor"))
	}
	if r.LocalAddress.ok && r.Address.ok && r.LocalAddress.v.Is4() != r.Address.v.Is4() {
		s.add(r.LocalAddress.at, bad("%s and the neighbor's %s are of different families", r.LocalAddress.v, r.Address.v).
			or("use an address of this box of the neighbor's family"))
	}
	out := Neighbor{Name: string(r.Name.v), Address: r.Address.v.Addr, Pos: r.pos}
	s.session(&r.rawSession, &out)
	switch {
	case r.Families.written():
	case r.Address.v.Is4():
		out.Families = []Family{IPv4Unicast}
	default:
		out.Families = []Family{IPv6Unicast}
	}
	return out
}

// inherit gives a session what its group says and it does not, key by key; of lists and scalars the session's own stands.
func inherit(own, group reflect.Value) {
	for _, k := range keysOf(own.Type()) {
		field, from := own.FieldByIndex(k.field), group.FieldByIndex(k.field)
		_, whole := field.Addr().Interface().(part)
		switch {
		case !field.Addr().Interface().(interface{ written() bool }).written():
			field.Set(from)
		case !whole:
			inherit(field, from)
		}
	}
}

// oneHold reads hold_time, the only timer of earlier versions, as timers.hold.
func (s *sessions) oneHold(r *rawSession) {
	if !r.HoldTime.written() {
		return
	}
	if r.Timers.Hold.written() {
		s.add(r.HoldTime.at, bad("the hold time stands in timers as well").or("remove hold_time"))
		return
	}
	if !r.Timers.written() {
		r.Timers.at = r.HoldTime.at
	}
	r.Timers.Hold, r.HoldTime = r.HoldTime, val[duration]{}
}

// session builds what a group may say as well.
func (s *sessions) session(r *rawSession, out *Neighbor) {
	reservedASN(r.ASN, s.add)
	out.ASN, out.Port = uint32(r.ASN.v), uint16(r.Port.or(defaultBGPPort))
	out.LocalAddress, out.Passive, out.PasswordFile = r.LocalAddress.v.Addr, bool(r.Passive.v), string(r.PasswordFile.v)
	s.distance(r, out)
	out.FirstAS = out.ASN != s.asn && (!r.EnforceFirstAS.written() || bool(r.EnforceFirstAS.v))
	if r.EnforceFirstAS.ok && r.ASN.ok && out.ASN == s.asn {
		s.add(r.EnforceFirstAS.at, bad("a path within one AS begins with any other").or("remove enforce_first_as"))
	}
	seen := map[string]at{}
	for _, f := range r.Families.items {
		if first := seen[string(f.v)]; f.ok && first.written() {
			s.add(f.at, bad("duplicate family %q", f.v).or("the first stands at %s", place(first)))
		}
		seen[string(f.v)] = f.at
		out.Families = append(out.Families, f.v)
	}
	if r.Families.empty() {
		s.add(r.Families.at, bad("the session would carry no family").or("remove the key for the family of the address"))
	}
	s.timers(&r.Timers, out)
	if r.GracefulRestart.written() {
		out.RestartTime = defaultRestartTime
	}
	if t := r.GracefulRestart.RestartTime; t.ok {
		out.RestartTime = time.Duration(t.v)
		if out.RestartTime == 0 || !wholeSeconds(out.RestartTime, maxRestartTime) {
			s.add(t.at, bad("restart time %s is not allowed", out.RestartTime).or("write 1s to 4095s in whole seconds"))
		}
	}
	out.MaxPrefixes = s.limit(r)
	out.Shutdown = bool(r.Shutdown.short.v) || r.Shutdown.long.written()
	out.Reason = string(r.Shutdown.long.Reason.v)
	out.BFD = s.bfd(r)
}

// bfd is single-hop (RFC 5881): packets of a neighbor that is further away would not be believed.
func (s *sessions) bfd(r *rawSession) BFD {
	b := &r.BFD
	if !b.written() {
		return BFD{}
	}
	if r.Multihop.written() || r.TTLSecurity.ok && r.TTLSecurity.v > 1 {
		s.add(b.at, bad("bfd watches a link, and the neighbor is not on it").or("remove bfd, or multihop and ttl_security above 1"))
	}
	out := BFD{Interval: defaultBFDInterval, Multiplier: uint8(b.Multiplier.or(defaultBFDMultiplier))}
	if b.Interval.ok {
		out.Interval = time.Duration(b.Interval.v)
		if out.Interval < minBFDInterval || out.Interval > maxBFDInterval || out.Interval%time.Microsecond != 0 {
			s.add(b.Interval.at, bad("interval %s is not allowed", out.Interval).or("write %s to %s", minBFDInterval, maxBFDInterval))
		}
	}
	return out
}

// distance is how far away the neighbor may be: at most one of the two, RFC 5082 section 3.
func (s *sessions) distance(r *rawSession, out *Neighbor) {
	out.Multihop, out.TTLSecurity = uint8(r.Multihop.v), uint8(r.TTLSecurity.v)
	switch {
	case r.Multihop.written() && r.TTLSecurity.written():
		s.add(r.TTLSecurity.at, bad("ttl_security and multihop exclude each other").or("write the hops as ttl_security: %d, and remove multihop", max(r.Multihop.v, 1)))
	case r.Multihop.ok && r.ASN.ok && out.ASN == s.asn:
		s.add(r.Multihop.at, bad("a session within one AS may cross any number of routers").or("remove multihop"))
	}
}

func (s *sessions) timers(r *rawTimers, out *Neighbor) {
	out.HoldTime, out.ConnectRetry = defaultHoldTime, defaultConnectRetry
	if r.Hold.ok {
		out.HoldTime = time.Duration(r.Hold.v)
		if out.HoldTime < minHoldTime || !wholeSeconds(out.HoldTime, maxHoldTime) {
			p := bad("hold time %s is not allowed", out.HoldTime).or("write 3s to 65535s in whole seconds")
			if out.HoldTime == 0 {
				p = bad("a session without keepalives is not offered: a dead neighbor would never be noticed").or("write 3s to 65535s; a neighbor that asks for 0 gets it")
			}
			s.add(r.Hold.at, p)
		}
	}
	if r.Keepalive.ok {
		out.Keepalive = time.Duration(r.Keepalive.v)
		if out.Keepalive == 0 || !wholeSeconds(out.Keepalive, out.HoldTime/3) {
			s.add(r.Keepalive.at, bad("a keepalive every %s does not hold a session of %s", out.Keepalive, out.HoldTime).
				or("write whole seconds, at most a third of the hold time"))
		}
	}
	if r.ConnectRetry.ok {
		out.ConnectRetry = time.Duration(r.ConnectRetry.v)
		if out.ConnectRetry < minConnectRetry || !wholeSeconds(out.ConnectRetry, maxConnectRetry) {
			s.add(r.ConnectRetry.at, bad("connect retry %s is not allowed", out.ConnectRetry).or("write 2s to 1h in whole seconds"))
		}
	}
}

func (s *sessions) limit(r *rawSession) PrefixLimit {
	short, long := r.MaxPrefixes.short, &r.MaxPrefixes.long
	switch {
	case short.written():
		return PrefixLimit{Limit: uint32(short.v), WarnAt: int(defaultWarnAt), Action: LimitStop}
	case !long.written():
		return PrefixLimit{}
	}
	out := PrefixLimit{Limit: uint32(long.Limit.v), WarnAt: int(long.WarnAt.or(defaultWarnAt)), Action: long.Action.or(LimitStop)}
	if out.Action == LimitRestart {
		out.RestartAfter = defaultRestartAfter
	}
	if t := long.RestartAfter; t.ok {
		out.RestartAfter = time.Duration(t.v)
		switch {
		case out.Action != LimitRestart && (long.Action.ok || !long.Action.written()):
			s.add(t.at, bad("restart_after belongs to action: restart").or("write action: restart, or remove it"))
		case out.RestartAfter < minRestartAfter || !wholeSeconds(out.RestartAfter, maxRestartAfter):
			s.add(t.at, bad("restart after %s is not allowed", out.RestartAfter).or("write 10s to 24h in whole seconds"))
		}
	}
	return out
}

func wholeSeconds(d, most time.Duration) bool { return d <= most && d%time.Second == 0 }
