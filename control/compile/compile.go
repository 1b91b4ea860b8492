package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/control/config"
	"sluice/control/host"
	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
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
	cfg     *config.Config
	facts   Facts
	ids     *idAllocator
	self    []netip.Addr
	present []config.Workload         // those whose interface is there
	sets    map[string][]netip.Prefix // sorted, by name
	errs    config.Errors
	warn    []string
}

// Compile makes the wanted state of every subsystem. Errors are config.Errors: what the parser cannot see, because it
// takes the facts or the compiled tables to know. rt and facts are not changed.
func Compile(cfg *config.Config, rt Runtime, facts Facts) (*Desired, error) {
	c := &compiler{cfg: cfg, facts: facts, ids: newIDAllocator(rt), sets: map[string][]netip.Prefix{}}
	c.findInterfaces()
	c.findWorkloads()
	c.self = c.selfAddresses()

	d := &Desired{
		Host:      c.host(),
		WireGuard: c.wireguard(),
		TC:        c.tc(),
		XDP:       c.xdp(),
		BGP:       c.bgp(),
		Telemetry: Telemetry{Metrics: c.cfg.Telemetry.Metrics},
	}
	c.budget(d)
	if len(c.errs) > 0 {
		return nil, c.errs
	}
	d.RuleIDs = c.ids.used
	d.Warnings = c.warn
	return d, nil
}

func (c *compiler) fail(pos config.Pos, path, msg, hint string) {
	c.errs = append(c.errs, config.Error{Pos: pos, Path: path, Msg: msg, Hint: hint})
}

// findInterfaces wants every interface of the file to be there; tunnels' are made.
func (c *compiler) findInterfaces() {
	for n, i := range c.cfg.Interfaces {
		if c.link(i.Name) != nil {
			continue
		}
		var there []string
		for _, l := range c.facts.Host.Links {
			there = append(there, l.Name)
		}
		c.fail(i.Pos, fmt.Sprintf("interfaces[%d].name", n), "there is no interface "+i.Name,
			"interfaces here are "+strings.Join(there, ", "))
	}
}

// findWorkloads keeps the workloads whose veth is there. A missing one is no error: orchestrators make veths when they
// please, and the link's arrival compiles again.
func (c *compiler) findWorkloads() {
	for _, w := range c.cfg.Workloads {
		switch link := c.link(w.Interface); {
		case link == nil:
			c.warn = append(c.warn, "workload "+w.Name+": interface "+w.Interface+" is not there yet; it is attached when it appears")
		case link.PeerHere:
			c.fail(w.Pos, "workloads", "both ends of the veth "+w.Interface+" are in this namespace",
				"move the other end into the workload's own namespace")
		default:
			c.present = append(c.present, w)
		}
	}
}

func (c *compiler) link(name string) *host.LinkFact {
	for i := range c.facts.Host.Links {
		if c.facts.Host.Links[i].Name == name {
			return &c.facts.Host.Links[i]
		}
	}
	return nil
}

// selfAddresses are the box's own: those the file writes, those that its interfaces have otherwise (from DHCP or by
// hand), and the gateways that workloads see. Sorted, without doubles.
func (c *compiler) selfAddresses() []netip.Addr {
	var self []netip.Addr
	add := func(prefixes []netip.Prefix) {
		for _, p := range prefixes {
			self = append(self, p.Addr().Unmap())
		}
	}
	for _, i := range c.cfg.Interfaces {
		add(i.Addresses)
		if link := c.link(i.Name); link != nil {
			add(link.Addresses)
		}
	}
	for _, t := range c.cfg.Tunnels {
		add(t.Addresses)
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
		Failsafe:  c.failsafe(),
		System:    c.system(),
		Ingress:   c.policy("ingress", "policy.ingress", c.cfg.Policy.Ingress),
		FlowSlots: c.cfg.Conntrack.MaxEntries,
	}}
	for _, i := range c.cfg.Interfaces {
		if i.Role != config.RoleUplink || i.XDP == config.XDPNone {
			continue
		}
		s.Interfaces = append(s.Interfaces, xdp.Interface{Name: i.Name, Mode: xdp.Mode(i.XDP), FailOpen: i.FailOpen})
	}
	slices.SortFunc(s.Interfaces, func(a, b xdp.Interface) int { return compareNames(a.Name, b.Name) })
	s.Digest = s.Generation.Digest()
	return s
}

// budget asks the classifier whether the policies of each object fit, so that `sluice check` says it and apply never
// finds out half-way.
func (c *compiler) budget(d *Desired) {
	for _, policies := range [][]classify.Policy{d.XDP.Generation.Policies(), d.TC.Generation.Policies()} {
		if _, err := classify.Compile(policies); err != nil {
			c.fail(c.cfg.Policy.Ingress.Pos, "policy", err.Error(), "")
			return
		}
	}
	if n := len(c.present); n > abi.MaxWorkloads {
		c.fail(c.cfg.Workloads[abi.MaxWorkloads].Pos, "workloads", "more workloads than one box holds", "")
	}
}

func (c *compiler) tc() tc.State {
	g := tc.Generation{
		Self:      c.self,
		Failsafe:  c.failsafe(),
		System:    c.system(),
		Ingress:   c.policy("ingress", "policy.ingress", c.cfg.Policy.Ingress),
		Egress:    c.policy("egress", "policy.egress", c.cfg.Policy.Egress),
		Matrix:    c.matrix(),
		FlowSlots: c.cfg.Conntrack.MaxEntries,
	}
	var s tc.State
	for _, i := range c.cfg.Interfaces {
		if role := tcRole(i.Role); role != tc.RoleNone {
			judge := i.Role == config.RoleUplink && i.XDP == config.XDPNone
			s.Interfaces = append(s.Interfaces, tc.Interface{Name: i.Name, Role: role, Judge: judge})
		}
	}
	for _, t := range c.cfg.Tunnels {
		s.Interfaces = append(s.Interfaces, tc.Interface{Name: t.Name, Role: tc.RoleTunnel, Judge: true})
		if t.Strict {
			for _, p := range t.Peers {
				g.Strict = append(g.Strict, p.Prefixes...)
			}
		}
	}
	for _, w := range c.present {
		s.Interfaces = append(s.Interfaces, tc.Interface{Name: w.Interface, Role: tc.RoleWorkload})
		g.Workloads = append(g.Workloads, tc.Workload{
			Name: w.Name, Interface: w.Interface, Addresses: sortedAddrs(w.Addresses),
			Ingress: c.policy("workload/"+w.Name+"/ingress", "workloads."+w.Name+".ingress", w.Ingress),
			Egress:  c.policy("workload/"+w.Name+"/egress", "workloads."+w.Name+".egress", w.Egress),
		})
	}
	slices.SortFunc(s.Interfaces, func(a, b tc.Interface) int { return compareNames(a.Name, b.Name) })
	slices.SortFunc(g.Workloads, func(a, b tc.Workload) int { return compareNames(a.Name, b.Name) })
	g.Strict = sortedPrefixes(g.Strict)
	s.Generation = g
	s.Digest = g.Digest()
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
