package compile

import (
	"cmp"
	"fmt"
	"slices"

	"sluice/control/config"
	"sluice/control/host"
	"sluice/xdp"
)

// Rules with vlan need the tag in the frame: XDP does not see one that the NIC has put beside it. So where such a rule can meet
// an uplink, its NIC has to leave tags where they are, and where it cannot the rule is refused: nobody would notice that it
// never matches. A shadow rule acts on nothing, and is only warned of.

// meets says whether a rule is asked about what enters by an interface.
func meets(r *config.Rule, link string) bool {
	return len(r.Interfaces) == 0 || slices.Contains(r.Interfaces, link)
}

// LooksAtTags names the uplinks about which compiling cfg has to know how their NICs treat VLAN tags: Facts.Host.Receivers.
func LooksAtTags(cfg *config.Config) []string {
	var tagged []*config.Rule
	for n := range cfg.Policy.Ingress.Rules { // not by value: there may be 100,000
		if r := &cfg.Policy.Ingress.Rules[n]; r.VLANs != nil {
			tagged = append(tagged, r)
		}
	}
	var links []string
	for _, i := range cfg.Interfaces {
		looks := slices.ContainsFunc(tagged, func(r *config.Rule) bool { return meets(r, i.Name) }) ||
			slices.ContainsFunc(cfg.Interfaces, func(child config.Interface) bool { return child.Parent == i.Name })
		if i.Role == config.RoleUplink && i.XDP != config.XDPNone && looks {
			links = append(links, i.Name)
		}
	}
	return links
}

// tags are the links whose NICs must leave VLAN tags in frames. Rules that cannot see a tag are told of.
func (c *compiler) tags() []host.Tags {
	var out []host.Tags
	c.tagsOutsideXDP()
	for _, name := range LooksAtTags(c.cfg) {
		receivers, known := c.facts.Host.Receivers[name]
		if link := c.link(name); !known && link != nil {
			receivers = []host.Receiver{{Link: name, Kind: link.Kind}}
		}
		for _, r := range receivers {
			switch {
			case r.HidesTags != "":
				c.mixed(name, fmt.Sprintf("%s: %s", r.Link, r.HidesTags))
				c.hidden(name, fmt.Sprintf("%s: %s", r.Link, r.HidesTags), func(*config.Rule) bool { return true })
				continue
			case r.Kind == "veth":
				c.warn = append(c.warn, fmt.Sprintf("interface %s is a veth: XDP, for rules with vlan and for VLAN children, sees no tag that its other end hands over beside the frame; "+
					"`ethtool -K PEER tx-vlan-offload off tx-vlan-stag-hw-insert off` there puts it in", r.Link))
			}
			out = append(out, host.Tags{Link: r.Link, InFrame: true})
		}
	}
	slices.SortFunc(out, func(a, b host.Tags) int { return compareNames(a.Link, b.Link) })
	return slices.Compact(out)
}

// tagsOutsideXDP tells of rules that name tags and meet an uplink without XDP: tcx passes tagged packets to be judged at their
// VLAN interface. The untagged ones it judges right.
func (c *compiler) tagsOutsideXDP() {
	for _, i := range c.cfg.Interfaces {
		if i.Role == config.RoleUplink && i.XDP == config.XDPNone {
			c.hidden(i.Name, i.Name+": its xdp.mode is none, and tcx judges untagged packets only", func(r *config.Rule) bool {
				return slices.ContainsFunc(r.VLANs, func(v config.Range) bool { return v.Last > 0 })
			})
		}
	}
}

// hidden refuses the rules with vlan that meet an uplink and are of a kind: why says what hides the tag.
func (c *compiler) hidden(uplink, why string, of func(*config.Rule) bool) {
	for n := range c.cfg.Policy.Ingress.Rules {
		r := &c.cfg.Policy.Ingress.Rules[n]
		if r.VLANs == nil || !meets(r, uplink) || !of(r) {
			continue
		}
		if r.Shadow {
			c.warn = append(c.warn, fmt.Sprintf("rule %s counts wrong, for it cannot see VLAN tags on %s", r.Name, why))
			continue
		}
		c.fail(r.Pos, fmt.Sprintf("policy.ingress.rules[%d].vlan", n), fmt.Sprintf("rule %s cannot see VLAN tags on %s", r.Name, why),
			"limit the rule by interfaces: to uplinks where it can, or remove vlan")
	}
}

// mixed refuses VLAN children of an uplink whose XDP sees their frames as its own.
func (c *compiler) mixed(uplink, why string) {
	for n, i := range c.cfg.Interfaces {
		if i.Parent == uplink {
			c.fail(i.Pos, fmt.Sprintf("interfaces[%d].parent", n), fmt.Sprintf("XDP cannot tell the frames of %s from those of %s", i.Name, why),
				"write xdp: {mode: none} at "+uplink+", so that tcx judges both")
		}
	}
}

// children are the VLANs whose frames XDP passes to be judged at their own interfaces.
func (c *compiler) children() []xdp.VLANChild {
	var out []xdp.VLANChild
	for _, i := range c.cfg.Interfaces {
		parent := c.interfaceOf(i.Parent)
		if parent == nil || parent.Role != config.RoleUplink || parent.XDP == config.XDPNone {
			continue
		}
		if link := c.link(i.Parent); link != nil { // else it is to be made, and its arrival compiles again
			out = append(out, xdp.VLANChild{Ifindex: uint32(link.Index), VLAN: uint16(i.VLAN)})
		}
	}
	slices.SortFunc(out, func(a, b xdp.VLANChild) int {
		return cmp.Or(cmp.Compare(a.Ifindex, b.Ifindex), cmp.Compare(a.VLAN, b.VLAN))
	})
	return out
}
