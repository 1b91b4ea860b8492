package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/control/config"
	"sluice/control/host"
	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/classify"
)

// The gateway addresses that every workload sees on the host side of its veth. They are the same for all, so that a
// workload's own configuration does not depend on the node it runs on.
var (
	GatewayIPv4 = netip.MustParseAddr("169.254.1.1")
	GatewayIPv6 = netip.MustParseAddr("fe80::1")
)

// compiler gathers what every part of the work needs.
type compiler struct {
	cache    *Cache
	cfg      *config.Config  // the file's, with the added workloads behind its own
	ofFile   int             // workloads before the added ones
	accepted bool            // Runtime.Accepted
	absent   map[string]bool // interfaces and tunnels that everything does without
	missing  []string        // Desired.Missing
	refused  []Refused
	facts    Facts
	ids      *idAllocator
	self     []netip.Addr
	present  []config.Workload         // those whose interface is there
	watched  map[string][]netip.Prefix // Runtime.Watched
	stale    stale
	sameIDs  bool               // the rules of the last compilation have ids by rt as they had
	now      resolution         // the next compilation's last
	limiters []classify.Limiter // of all policies so far
	crowded  bool               // there were more
	rules    policies
	cookies  protected // by rules with syn_cookie
	snat     translation
	tunnels  tunnels
	reached  map[netip.Addr]bool // Runtime.Reached
	drain    Drain
	errs     config.Errors
	warn     []string
	notes    []string
}

// policies are all of a file, those of workloads in its order. Both objects judge the first three.
type policies struct {
	failsafe, system, ingress, egress classify.Policy
	workloads                         []workloadPolicies
	lans                              []tc.LAN           // those that have some, sorted by interface
	shared                            []classify.Limiter // those of ingress
}

type workloadPolicies struct{ ingress, egress classify.Policy }

// place is where something stands in the file.
type place struct {
	pos  config.Pos
	path string
}

// Compile makes the wanted state of every subsystem. Errors are config.Errors: what the parser cannot see, because it
// takes the facts or the compiled tables to know. rt and facts are not changed.
func Compile(cfg *config.Config, rt Runtime, facts Facts) (*Desired, error) {
	return new(Cache).Compile(cfg, rt, facts)
}

// Compile is the function Compile. Nothing of cfg and rt may be changed afterwards.
func (k *Cache) Compile(cfg *config.Config, rt Runtime, facts Facts) (*Desired, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		d, c := k.compile(cfg, rt, facts)
		if d != nil {
			return d, nil
		}
		rest, blamed := c.withoutBlamed(rt.Workloads)
		if !blamed {
			return nil, c.errs
		}
		rt.Workloads = rest // fewer each time
	}
}

// compile returns no Desired where there are errors, which are the compiler's.
func (k *Cache) compile(cfg *config.Config, rt Runtime, facts Facts) (*Desired, *compiler) {
	c := &compiler{cache: k, accepted: rt.Accepted, absent: map[string]bool{}, facts: facts, ids: newIDAllocator(rt), watched: rt.Watched, reached: rt.Reached, drain: rt.Drain,
		now: resolution{policies: map[string]resolvedRules{}, sets: map[string]resolvedSet{}, links: map[string]int{}}}
	c.merge(cfg, rt.Workloads)
	c.now.workloads = c.cfg.Workloads
	c.sameIDs = sameMap(k.last.ids, rt.RuleIDs) || c.ids.keeps(k.last.ids)
	c.findInterfaces()
	c.findOrphans()
	c.findForeign()
	c.findWorkloads()
	c.self = c.selfAddresses()
	c.now.self = c.self
	c.findStale()
	c.findTunnels(rt.Tunnels)
	c.rules = c.policies()
	c.cookies = c.synCookies()

	c.snat = c.translation()

	d := &Desired{
		Host:      c.host(),
		Path:      c.blackholes(),
		WireGuard: c.wireguard(),
		IPsec:     c.ipsec(),
		TC:        c.tc(),
		XDP:       c.xdp(),
		BGP:       c.bgp(),
		Telemetry: Telemetry{Metrics: c.cfg.Telemetry.Metrics},
		Node:      c.node(),
	}
	c.judgeSets()
	c.budget(d)
	c.checkKeys()
	c.checkStrict()
	c.checkRouted()
	c.checkHops()
	c.checkTwice()
	c.checkAdvertised()
	c.checkMetrics()
	c.checkWorkloadAddresses()
	if len(c.errs) > 0 {
		slices.SortStableFunc(c.errs, func(a, b config.Error) int {
			return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Column, b.Pos.Column))
		})
		return nil, c
	}
	d.RuleIDs = c.ids.result()
	d.Warnings, d.Notes, d.Refused, d.Missing, d.Config = c.warn, c.notes, c.refused, c.missing, c.cfg
	c.now.ids = d.RuleIDs
	k.last = c.now
	return d, c
}

func (c *compiler) fail(pos config.Pos, path, msg, hint string) {
	c.errs = append(c.errs, config.Error{Pos: pos, Path: path, Msg: msg, Hint: hint})
}

// failNew refuses what a file is refused for when somebody applies it. One that was applied before, by a release that did not look
// or when the machine was another, goes on with a warning.
func (c *compiler) failNew(pos config.Pos, path, msg, hint string) {
	if c.accepted {
		c.warn = append(c.warn, path+": "+msg)
		return
	}
	c.fail(pos, path, msg, hint)
}

func (c *compiler) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// findInterfaces wants every interface of the file to be there, but for those of workloads, which come and go, and for
// those that are to be made.
func (c *compiler) findInterfaces() {
	for n, i := range c.cfg.Interfaces {
		if i.Made() {
			c.findDevice(n)
			continue
		}
		if c.link(i.Name) != nil || c.workloadOf(i.Name) != nil {
			continue
		}
		c.miss(n, "name", "there is no interface "+i.Name, c.linksHint())
	}
}

// linksHint names the interfaces that are there, but for the many host sides that a box of containers has.
func (c *compiler) linksHint() string {
	const most = 20
	var there []string
	for _, l := range c.facts.Host.Links {
		there = append(there, l.Name)
	}
	switch more := len(there) - most; {
	case len(there) == 0:
		return "no interface is here at all"
	case more > 0:
		return fmt.Sprintf("interfaces here are %s and %d more", strings.Join(there[:most], ", "), more)
	default:
		return "interfaces here are " + strings.Join(there, ", ")
	}
}

// findWorkloads keeps the workloads whose veth is there. A missing one is no error: orchestrators make veths when they
// please, and the link's arrival compiles again.
func (c *compiler) findWorkloads() {
	for n, w := range c.cfg.Workloads {
		switch link := c.link(w.Interface); {
		case link == nil:
			c.warn = append(c.warn, "workload "+w.Name+": interface "+w.Interface+" is not there yet; it is attached when it appears")
		case link.PeerHere:
			c.refuse(n, "both ends of the "+cmp.Or(link.Kind, "veth")+" "+w.Interface+" are in this namespace", "move the other end into the workload's own namespace")
		default:
			c.present = append(c.present, w)
		}
	}
}

// workloadOf returns the workload behind an interface, or nil.
func (c *compiler) workloadOf(link string) *config.Workload {
	n := slices.IndexFunc(c.cfg.Workloads, func(w config.Workload) bool { return w.Interface == link })
	if n < 0 {
		return nil
	}
	return &c.cfg.Workloads[n]
}

func (c *compiler) link(name string) *host.LinkFact {
	for i := range c.facts.Host.Links {
		if c.facts.Host.Links[i].Name == name {
			return &c.facts.Host.Links[i]
		}
	}
	return nil
}

// selfAddresses are the box's own, which the kernel takes as its own whatever interface they come in by: those the file
// writes, those that interfaces have otherwise (from DHCP or by hand), and the gateways that workloads see. Link-local
// ones count where the file names the interface: a container's veth that comes and goes is no reason for a new
// generation. Loopback ones never do: nothing from outside has a right to them. Sorted, without doubles.
func (c *compiler) selfAddresses() []netip.Addr {
	var self []netip.Addr
	add := func(prefixes []netip.Prefix, linkLocal bool) {
		for _, p := range prefixes {
			if a := p.Addr().Unmap(); !a.IsLoopback() && (linkLocal || !a.IsLinkLocalUnicast()) {
				self = append(self, a)
			}
		}
	}
	named := map[string]bool{}
	for _, i := range c.cfg.Interfaces {
		named[i.Name] = c.workloadOf(i.Name) == nil
		add(i.Addresses, true)
	}
	for _, t := range c.cfg.Tunnels {
		add(t.Addresses, true)
	}
	for _, l := range c.facts.Host.Links {
		add(l.Addresses, named[l.Name])
	}
	if len(c.cfg.Workloads) > 0 {
		self = append(self, GatewayIPv4, GatewayIPv6)
	}
	slices.SortFunc(self, netip.Addr.Compare)
	return slices.Compact(self)
}

func (c *compiler) xdp() xdp.State {
	s := xdp.State{Generation: xdp.Generation{
		Self:      c.self,
		Failsafe:  c.rules.failsafe,
		System:    c.rules.system,
		Ingress:   c.rules.ingress,
		Limiters:  c.rules.shared,
		FlowSlots: c.cfg.Conntrack.MaxEntries,
		RuleSlots: c.ids.slots(), LimitSlots: c.limitSlots(),
		Sockets:  c.sockets(),
		Children: c.children(),

		SYNListeners: c.cookies.listeners,
		Refuses:      c.cookies.refuses,
		Workloads:    c.cookies.workloads,
	}}
	for _, i := range c.cfg.Interfaces {
		if i.Role != config.RoleUplink || i.XDP == config.XDPNone || c.absent[i.Name] {
			continue
		}
		s.Interfaces = append(s.Interfaces, xdp.Interface{Name: i.Name, Mode: xdp.Mode(i.XDP), FailOpen: i.FailOpen})
	}
	slices.SortFunc(s.Interfaces, func(a, b xdp.Interface) int { return compareNames(a.Name, b.Name) })
	return s
}

func (c *compiler) tc() tc.State {
	g := tc.Generation{
		Self:      c.self,
		Failsafe:  c.rules.failsafe,
		System:    c.rules.system,
		Ingress:   c.rules.ingress,
		Egress:    c.rules.egress,
		Matrix:    c.matrix(),
		FlowSlots: c.cfg.Conntrack.MaxEntries,
		RuleSlots: c.ids.slots(), LimitSlots: c.limitSlots(),

		SNATAddresses: c.snat.addresses, SNATPorts: c.snat.ports, Announced: c.snat.announced,
	}
	var s tc.State
	for _, i := range c.cfg.Interfaces {
		if role := tcRole(i.Role); role != tc.RoleNone && c.workloadOf(i.Name) == nil && !c.absent[i.Name] {
			judge := i.Role == config.RoleTunnel || i.Role == config.RoleUplink && i.XDP == config.XDPNone
			s.Interfaces = append(s.Interfaces, tc.Interface{Name: i.Name, Role: role, Judge: judge, FQ: c.keepsTimes(i.Name), SNAT: c.snat.of[i.Name]})
		}
	}
	for _, t := range c.cfg.Tunnels {
		if !c.absent[t.Name] {
			s.Interfaces = append(s.Interfaces, tc.Interface{Name: t.Name, Role: tc.RoleTunnel, Judge: true, ClampMSS: t.ClampMSS, Encrypted: true})
		}
		if t.Strict {
			for _, p := range t.Peers {
				g.Strict = append(g.Strict, p.Prefixes...)
			}
		}
	}
	for n, w := range c.cfg.Workloads {
		if link := c.link(w.Interface); link == nil || link.PeerHere {
			continue
		}
		s.Interfaces = append(s.Interfaces, tc.Interface{Name: w.Interface, Role: tc.RoleWorkload, Stack: w.Path == config.PathStack, SNAT: c.snat.of[w.Interface]})
		g.Workloads = append(g.Workloads, tc.Workload{
			Name: w.Name, Interface: w.Interface, Addresses: sortedAddrs(w.Addresses),
			Ingress: c.rules.workloads[n].ingress, Egress: c.rules.workloads[n].egress,
		})
	}
	slices.SortFunc(s.Interfaces, func(a, b tc.Interface) int { return compareNames(a.Name, b.Name) })
	g.LANs = c.rules.lans
	slices.SortFunc(g.Workloads, func(a, b tc.Workload) int { return compareNames(a.Name, b.Name) })
	g.Strict = sortedPrefixes(g.Strict)
	g.OnLink = c.onLink(g.Strict)
	g.Paced = c.paced()
	g.Limiters = c.limiters
	s.Generation = g
	return s
}

func tcRole(r config.Role) tc.Role {
	switch r {
	case config.RoleUplink:
		return tc.RoleUplink
	case config.RoleDownstream:
		return tc.RoleDownstream
	case config.RoleWorkload:
		return tc.RoleWorkload
	case config.RoleTunnel:
		return tc.RoleTunnel
	case config.RoleManagement:
		return tc.RoleManagement
	default:
		return tc.RoleNone
	}
}
