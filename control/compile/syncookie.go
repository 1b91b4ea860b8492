package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/config"
	"sluice/control/host"
	"sluice/plural"
	"sluice/xdp/abi"
)

// cookieSysctls make the kernel take the cookies of XDP for its own. tcp_syncookies 2: at 1 the listener sends none while its
// queue has room, and looks at none. tcp_timestamps 2: at 1 they have an offset per connection that only the kernel knows; window
// scale and SACK, which ride in them, are then read wrong (Linux 6.18: half the connections broke).
var cookieSysctls = []string{"net.ipv4.tcp_syncookies", "net.ipv4.tcp_timestamps"}

const cookieValue = "2"

// protected is what rules with syn_cookie need.
type protected struct {
	listeners []netip.AddrPort // sorted
	refuses   map[netip.AddrPort]uint8
	own       bool         // some are the box's
	links     []string     // of workloads that have some: sorted
	workloads []netip.Addr // addresses of all workloads, those that are away included: sorted
}

// LooksBehind names the interfaces behind which compiling cfg has to look: Facts.Host.Behind.
func LooksBehind(cfg *config.Config, added []Added) []string {
	asks := false
	for i := range cfg.Policy.Ingress.Rules {
		asks = asks || cfg.Policy.Ingress.Rules[i].Action == config.SYNCookie
	}
	if !asks {
		return nil
	}
	var links []string
	for _, w := range cfg.Workloads {
		links = append(links, w.Interface)
	}
	for _, a := range added {
		links = append(links, a.Interface)
	}
	return append(links, host.Here)
}

// synCookies finds the listeners of every rule with syn_cookie. XDP answers for exactly these: it must know that nobody
// behind them is a router or a machine whose kernel has other secrets.
func (c *compiler) synCookies() protected {
	var p protected
	owners := c.listenerOwners()
	known, links := map[netip.AddrPort]bool{}, map[string]bool{}
	rules := false
	for n := range c.cfg.Policy.Ingress.Rules {
		r := &c.cfg.Policy.Ingress.Rules[n]
		if r.Action != config.SYNCookie {
			continue
		}
		rules = true
		at := place{r.Pos, fmt.Sprintf("policy.ingress.rules[%d]", n)}
		if addrs, ok := c.listenerAddresses(*r, at, owners); ok {
			c.addListeners(*r, at, addrs, known)
		}
	}
	if !rules {
		return p
	}
	for a := range known {
		p.listeners = append(p.listeners, a)
		link := owners[a.Addr()]
		if link != host.Here {
			links[link] = true
		} else {
			p.own = true
		}
		if r := c.refuses(link); r != 0 {
			if p.refuses == nil {
				p.refuses = map[netip.AddrPort]uint8{}
			}
			p.refuses[a] = r
		}
	}
	slices.SortFunc(p.listeners, netip.AddrPort.Compare)
	for link := range links {
		p.links = append(p.links, link)
	}
	slices.Sort(p.links)
	if len(p.listeners) > 0 {
		p.workloads = c.workloadAddresses()
	}
	c.cookieSettings(p)
	return p
}

// listenerOwners are the addresses behind which a listener of this machine may be: the interface of the workload, or
// host.Here for the box's own.
func (c *compiler) listenerOwners() map[netip.Addr]string {
	owners := map[netip.Addr]string{}
	for _, w := range c.cfg.Workloads {
		for _, a := range w.Addresses {
			owners[a] = w.Interface
		}
	}
	for _, a := range c.self {
		owners[a] = host.Here
	}
	return owners
}

// refuses are the options of TCP that listeners behind a link are set not to take.
func (c *compiler) refuses(link string) (options uint8) {
	behind := c.facts.Host.Behind[link]
	if behind.NoSACK {
		options |= abi.ListenerSACK
	}
	if behind.NoWindowScaling {
		options |= abi.ListenerWindowScale
	}
	return options
}

func (c *compiler) workloadAddresses() []netip.Addr {
	var all []netip.Addr
	for _, w := range c.cfg.Workloads {
		all = append(all, w.Addresses...)
	}
	return sortedAddrs(all)
}

// listenerAddresses are those that a rule protects. What it matches beyond them is an error: nobody would notice that it
// is not protected.
func (c *compiler) listenerAddresses(r config.Rule, at place, owners map[netip.Addr]string) ([]netip.Addr, bool) {
	inside := map[netip.Addr]bool{}
	whole := true
	for _, p := range c.resolve(r.To) {
		count := 0
		for a := range owners {
			if p.Contains(a) {
				inside[a] = true
				count++
			}
		}
		if host := p.Addr().BitLen() - p.Bits(); host > 16 || count != 1<<host {
			whole = false
			c.fail(at.pos, at.path+".to", fmt.Sprintf("rule %s: syn_cookie answers in the name of listeners on this machine, and %s holds other addresses", r.Name, p),
				"name self, workloads, or their addresses one by one; action: limit bounds SYNs to what is only forwarded")
		}
	}
	except := c.resolve(r.NotTo)
	var out []netip.Addr
	reachable := map[string]bool{}
	for a := range inside {
		contains := func(p netip.Prefix) bool { return p.Contains(a) }
		// A link-local address means something else on every link, and no listener that is worth it.
		if a.IsLinkLocalUnicast() || slices.ContainsFunc(except, contains) {
			continue
		}
		if link := owners[a]; link != host.Here {
			ok, asked := reachable[link]
			if !asked {
				ok = c.canHaveCookies(r, at, link)
				reachable[link] = ok
			}
			whole = whole && ok
			if c.link(link) == nil {
				continue // it comes later, and then this is compiled again
			}
		}
		out = append(out, a)
	}
	return out, whole
}

// canHaveCookies says whether the kernel behind a workload's interface is this one, in a namespace whose settings we can make.
func (c *compiler) canHaveCookies(r config.Rule, at place, link string) bool {
	w := c.workloadOf(link)
	behind, known := c.facts.Host.Behind[link]
	switch {
	case !known:
		return true
	case behind.Kind != "veth":
		kind := cmp.Or(behind.Kind, "physical")
		c.fail(at.pos, at.path+".to", fmt.Sprintf("rule %s: workload %s is behind %s, which is no veth but %s: its kernel is another one and does not know this one's cookies",
			r.Name, w.Name, link, kind), "leave it out; a virtual machine makes its own cookies")
		return false
	case behind.Unreachable != "":
		c.fail(at.pos, at.path+".to", fmt.Sprintf("rule %s: tcp_syncookies and tcp_timestamps of workload %s cannot be set: %s", r.Name, w.Name, behind.Unreachable),
			"run sluice in the host's PID namespace, give the namespace a name (`ip netns attach`), or leave the workload out")
		return false
	}
	return true
}

// addListeners adds a rule's listeners to known, unless they are too many. A shadow rule has none: it only counts.
func (c *compiler) addListeners(r config.Rule, at place, addrs []netip.Addr, known map[netip.AddrPort]bool) {
	pairs := 0
	for _, p := range r.Ports {
		pairs += len(addrs) * (int(p.Last) - int(p.First) + 1)
	}
	if pairs <= abi.MaxSYNListeners && !r.Shadow { // which bounds the work; doubles are told apart by the map
		for _, a := range addrs {
			for _, p := range r.Ports {
				for port := int(p.First); port <= int(p.Last); port++ {
					known[netip.AddrPortFrom(a, uint16(port))] = true
				}
			}
		}
	}
	if pairs > abi.MaxSYNListeners || len(known) > abi.MaxSYNListeners {
		c.fail(at.pos, at.path, fmt.Sprintf("rule %s: %s times its ports are %d listeners; all rules with syn_cookie together may have %d",
			r.Name, plural.Of(len(addrs), "address", "addresses"), pairs, abi.MaxSYNListeners), "name the ports where something listens")
	}
}

// cookieSettings tells of settings in the file under which no cookie of ours is taken, and of uplinks that have no XDP.
func (c *compiler) cookieSettings(p protected) {
	for n, s := range c.cfg.Sysctls {
		for _, key := range cookieSysctls {
			if p.own && host.SameSysctl(s.Key, key) && s.Value != cookieValue {
				c.fail(s.Pos, fmt.Sprintf("sysctls[%d]", n), fmt.Sprintf("%s must be %s where syn_cookie protects the box's own addresses", key, cookieValue),
					"remove the line: the rule sets it")
			}
		}
	}
	for _, i := range c.cfg.Interfaces {
		if i.Role != config.RoleUplink {
			continue
		}
		switch link := c.link(i.Name); {
		case i.XDP == config.XDPNone:
			c.warn = append(c.warn, "interface "+i.Name+": syn_cookie rules accept here and answer nothing, because xdp.mode is none; the kernel's own cookies remain")
		case i.XDP != config.XDPGeneric && link != nil && link.Kind == "veth" && len(p.listeners) > 0:
			c.warn = append(c.warn, "interface "+i.Name+" is a veth: its other end loses what syn_cookie rules answer unless it has an XDP program of its own, be it one that "+
				"passes everything; without, clients connect by their second SYN")
		}
	}
}

// innerSysctls are those of the namespaces of protected workloads.
func (c *compiler) innerSysctls() []host.InnerSysctl {
	var out []host.InnerSysctl
	for _, link := range c.cookies.links {
		for _, key := range cookieSysctls {
			out = append(out, host.InnerSysctl{Link: link, Key: key, Value: cookieValue})
		}
	}
	return out
}
