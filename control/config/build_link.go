package config

import (
	"slices"
	"strconv"
)

// stack is what stands on what: VLAN children on their parents, bonds on their members. It has three floors at most (a
// NIC, a bond, a VLAN child), so that there are no loops.
type stack struct {
	entries  map[string]*rawInterface
	children map[string]at // by parent: the first that names it
	members  map[string]at // by member: the first bond that names it
	vlans    map[string]at // by parent and id
}

// carries says whether something stands on a link: then it needs no role of its own.
func (s stack) carries(link string) bool { return s.children[link].written() }

func (b *builder) stack(raw []rawInterface) stack {
	on := stack{map[string]*rawInterface{}, map[string]at{}, map[string]at{}, map[string]at{}}
	for i := range raw {
		r := &raw[i]
		if r.Name.ok && on.entries[string(r.Name.v)] == nil {
			on.entries[string(r.Name.v)] = r
		}
		if parent := string(r.Parent.v); r.Parent.ok && !on.carries(parent) {
			on.children[parent] = r.Parent.at
		}
	}
	for i := range raw {
		once := map[string]at{}
		for _, m := range raw[i].Members.items {
			b.unique(once, string(m.v), m.ok, m.at, "member")
		}
		for name, where := range once {
			if first := on.members[name]; first.written() {
				b.add(where, bad("%s is a member of another bond", name).or("it stands at %s", place(first)))
				continue
			}
			on.members[name] = where
		}
	}
	return on
}

// defaultXDP is how XDP runs on an uplink whose file does not say. A VLAN child and a bond have no receive path of their
// own: frames come in by the parent, or the members, where XDP would see them before they are theirs.
func defaultXDP(r *rawInterface) XDPMode {
	if r.Parent.written() || r.Members.written() {
		return XDPNone
	}
	return XDPAuto
}

// device judges an interface that Sluice is to make.
func (b *builder) device(r *rawInterface, on stack) {
	child, bond := r.Parent.written() || r.VLAN.written(), r.Members.written() || r.LACP.written()
	if !child && !bond {
		return
	}
	name := string(r.Name.v)
	_, claimed := b.links[name]
	switch {
	case child && bond:
		b.add(r.at, bad("an interface is a VLAN child or a bond").or("make the bond an entry of its own, and parent: of the VLAN child"))
		return
	case r.Name.ok && (name == "lo" || claimed): // a tunnel's device has been told of
		if name == "lo" || r.Role.v == RoleWorkload {
			b.add(r.at, bad("%s is not for us to make", name).or("remove parent, vlan, members and lacp"))
		}
	}
	if m := r.XDP.Mode; m.ok && r.Role.v == RoleUplink && (m.v == XDPAuto || m.v == XDPNative) {
		b.add(m.at, bad("XDP has no native mode here: frames come in by %s", below(r)).
			or("write none (default: tcx judges policy.ingress) or generic, which costs more and knows all actions"))
	}
	if child {
		b.child(r, on)
	} else {
		b.bond(r, on)
	}
}

func below(r *rawInterface) string {
	if r.Parent.written() {
		return "the parent"
	}
	return "the members"
}

func (b *builder) child(r *rawInterface, on stack) {
	parent := string(r.Parent.v)
	switch {
	case !r.Parent.written():
		b.add(r.VLAN.at, bad("a VLAN child needs its parent").or("write parent:, the interface that carries the tagged frames"))
		return
	case !r.VLAN.written():
		b.add(r.Parent.at, bad("a VLAN child needs its VLAN").or("write vlan: 1-4094"))
		return
	case !r.Parent.ok:
		return
	}
	b.unique(on.vlans, parent+" vlan "+strconv.Itoa(int(r.VLAN.v)), r.VLAN.ok, r.VLAN.at, "VLAN child")
	under, listed := on.entries[parent]
	_, claimed := b.links[parent]
	switch {
	case r.Name.ok && parent == string(r.Name.v):
		b.add(r.Parent.at, bad("%s is its own parent", parent))
	case parent == "lo" || claimed:
		b.add(r.Parent.at, bad("%s cannot have VLAN children", parent).or("name a physical interface or a bond"))
	case on.members[parent].written():
		b.add(r.Parent.at, bad("%s is a member of a bond", parent).or("name the bond, at %s", place(on.members[parent])))
	case listed && (under.Parent.written() || under.VLAN.written()):
		b.add(r.Parent.at, bad("%s is a VLAN child itself", parent).or("name its parent; stacked tags are not available"))
	case listed && r.MTU.ok && under.MTU.ok && r.MTU.v > under.MTU.v:
		b.add(r.MTU.at, bad("MTU %d is larger than that of %s, %d", r.MTU.v, parent, under.MTU.v).or("write %d or less", under.MTU.v))
	}
}

func (b *builder) bond(r *rawInterface, on stack) {
	switch {
	case !r.Members.written():
		b.add(r.LACP.at, bad("LACP needs the members of a bond").or("write members:"))
		return
	case !r.LACP.written():
		b.add(r.Members.at, bad("a bond needs to know whether it speaks LACP").or(`write lacp: fast, slow or "off" (active-backup)`))
	case r.Members.empty():
		b.add(r.Members.at, bad("the bond has no members").or("name at least one interface"))
	}
	for _, m := range r.Members.items {
		if m.ok {
			b.member(m.at, string(m.v), r, on)
		}
	}
}

// member judges one link of a bond. What it had of its own would be out of reach behind the bond.
func (b *builder) member(a at, name string, bond *rawInterface, on stack) {
	under, listed := on.entries[name]
	_, claimed := b.links[name]
	switch {
	case bond.Name.ok && name == string(bond.Name.v):
		b.add(a, bad("%s is its own member", name))
	case name == "lo" || claimed:
		b.add(a, bad("%s cannot be a member of a bond", name).or("name physical interfaces"))
	case listed && slices.Contains([]bool{under.Parent.written(), under.VLAN.written(), under.Members.written(), under.LACP.written()}, true):
		b.add(a, bad("%s is a VLAN child or a bond itself", name).or("name physical interfaces"))
	case listed:
		b.add(a, bad("a member has nothing of its own, and %s has an entry", name).
			or("remove %s, and write role, addresses and mtu at the bond", place(under.at)))
	case on.carries(name):
		b.add(a, bad("%s is the parent of a VLAN child", name).or("write the bond as its parent, at %s", place(on.children[name])))
	}
}
