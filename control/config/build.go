package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// builder checks what takes more than one value, and fills Config.
type builder struct {
	*report
	cfg       *Config
	names     map[string]at     // sets, workloads and self
	links     map[string]at     // interfaces that something of the file makes or claims: workloads and tunnels
	networked map[netip.Addr]at // addresses of interfaces and tunnels, with a network around them
	// families of every set and workload, for rules that can never match.
	families map[string]families
	owners   map[string]bool // true for workloads, false for sets
	reader   *setReader
	files    map[string]*setFile // by path, so that two sets may share one
	// unsureLinks says that interfaces: or tunnels: could not be read as a whole.
	unsureLinks bool
	around      map[netip.Prefix]bool // see aside; nil: not looked at yet

	// Of a file that is read in pieces.
	known     memory
	pieces    map[fingerprint]bundle // of this file
	asked     map[question]answer    // by one piece
	uncertain bool                   // it has to be read as a whole
}

func newBuilder(r *report, files *setReader) *builder {
	return &builder{report: r, cfg: &Config{}, names: map[string]at{}, links: map[string]at{},
		networked: map[netip.Addr]at{},
		families:  map[string]families{}, owners: map[string]bool{},
		reader: files, files: map[string]*setFile{}}
}

// build needs the order of its calls: names before the rules that use them.
func (b *builder) build(raw *rawConfig) {
	b.node(&raw.Node)
	b.sets(raw.Sets.items)
	b.workloads(raw.Workloads.items)
	b.tunnels(raw.Tunnels.items)
	b.interfaces(raw.Interfaces.items)
	b.routes(raw.Routes.items)
	b.tunnelRoutes(raw)
	b.sysctls(raw.Sysctls.items)
	b.management(raw.Management.Accept.items)
	b.forward(raw.Forward.items)
	b.sockets(raw.Sockets.items)
	b.policies(raw)
	b.lockout(raw)
	b.bgp(&raw.BGP)
	b.own(raw)
	b.checks(raw.Apply.Checks.items)
	b.cfg.SNATPorts = raw.SNAT.Ports.v.PortRange
	b.cfg.Conntrack.MaxEntries = uint32(raw.Conntrack.MaxEntries.or(defaultFlows))
	b.cfg.Telemetry.Metrics = raw.Telemetry.Metrics.v.AddrPort
	b.sshPort(raw)
	if m := raw.Telemetry.Metrics; m.ok && b.cfg.BGP != nil && m.v.Port() == b.cfg.BGP.Listen {
		b.add(m.at, bad("BGP listens on TCP port %d of every address", m.v.Port()).or("write another port, or another bgp.listen"))
	}
	for _, path := range slices.Sorted(maps.Keys(b.files)) {
		b.cfg.Files = append(b.cfg.Files, File{Path: path, Contents: b.files[path].contents})
	}
}

const defaultFlows flowCount = 131072

// unique reports a value that stands in seen already. ok is false for values that could not be read: they take no part.
func (b *builder) unique(seen map[string]at, value string, ok bool, a at, what string) {
	if !ok {
		return
	}
	if first, taken := seen[value]; taken {
		p := bad("duplicate %s %q", what, value).or("the first stands at %s", place(first))
		if !first.written() {
			p = bad("the name %q is reserved", value).or("it means the box itself")
		}
		b.add(a, p)
		return
	}
	seen[value] = a
}

// place tells where something stands, within the same file.
func place(a at) string {
	if a.pos.Line == nowhere {
		return a.path
	}
	return fmt.Sprintf("%s, line %d", a.path, a.pos.Line)
}

func (b *builder) checks(raw []rawCheck) {
	for _, r := range raw {
		if r.Neighbors.written() == r.Reach.written() {
			b.add(r.at, bad("a check is either `neighbors: keep` or `reach: ADDRESS`"))
		}
		b.cfg.Apply.Checks = append(b.cfg.Apply.Checks,
			Check{KeepNeighbors: r.Neighbors.written(), Reach: r.Reach.v.Addr, Pos: r.pos})
	}
}

// own reports addresses that this box has itself and something outside it claims too.
func (b *builder) own(raw *rawConfig) {
	mine := map[netip.Addr]at{}
	for _, i := range raw.Interfaces.items {
		for _, a := range i.Addresses.items {
			mine[a.v.Addr()] = a.at
		}
	}
	for _, t := range raw.Tunnels.items {
		for _, a := range t.Addresses.items {
			mine[a.v.Addr()] = a.at
		}
	}
	check := func(a netip.Addr, ok bool, where at) {
		if first, taken := mine[a]; ok && taken && first.written() {
			b.add(where, bad("%s is an address of this box", a).or("it stands at %s", place(first)))
		}
	}
	for _, w := range raw.Workloads.items {
		for _, a := range w.Addresses.items {
			check(a.v.Addr, a.ok, a.at)
		}
	}
	for _, t := range raw.Tunnels.items {
		check(t.Health.Probe.v.Addr, t.Health.Probe.ok, t.Health.Probe.at)
		for _, p := range t.Peers.items {
			check(p.Probe.v.Addr, p.Probe.ok, p.Probe.at)
			for _, e := range p.Endpoints.items {
				check(e.v.Addr, e.ok, e.at)
			}
		}
	}
	for _, n := range raw.BGP.Neighbors.items {
		check(n.Address.v.Addr, n.Address.ok, n.Address.at)
	}
	for _, e := range raw.BGP.Advertise.items {
		for _, a := range e.When.Reach.items {
			check(a.v.Addr, a.ok, a.at)
		}
	}
	for _, r := range raw.Routes.items {
		for _, v := range r.Via.items {
			check(v.v.Addr, v.ok, v.at)
		}
	}
	for _, c := range raw.Apply.Checks.items {
		check(c.Reach.v.Addr, c.Reach.ok, c.Reach.at)
	}
}

// families is a set of address families.
type families uint8

const (
	ipv4 families = 1 << iota
	ipv6
	bothFamilies = ipv4 | ipv6
)

func familyOf(a netip.Addr) families {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

func (f families) String() string {
	switch f {
	case ipv4:
		return "IPv4"
	case ipv6:
		return "IPv6"
	}
	return "IPv4 and IPv6"
}
