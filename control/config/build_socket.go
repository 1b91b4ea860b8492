package config

import "slices"

// sockets fills the sockets of bypass rules. They stand on uplinks where XDP runs: nothing else can redirect to them.
func (b *builder) sockets(raw []rawSocket) {
	seen := map[string]at{}
	var uplinks []string
	for _, i := range b.cfg.Interfaces {
		if i.Role == RoleUplink && i.XDP != XDPNone {
			uplinks = append(uplinks, i.Name)
		}
	}
	for i := range raw {
		r := &raw[i]
		b.unique(seen, string(r.Name.v), r.Name.ok, r.Name.at, "socket")
		out := Socket{Name: string(r.Name.v), Pos: r.pos}
		if r.Interfaces.empty() {
			b.add(r.Interfaces.at, emptyMatch())
		}
		once := map[string]at{}
		for _, v := range r.Interfaces.items {
			b.unique(once, string(v.v), v.ok, v.at, "interface")
			if v.ok && !slices.Contains(uplinks, string(v.v)) {
				b.add(v.at, bad("%s is no uplink with XDP", v.v).or("only XDP hands packets to a socket: name an interface with role: uplink and an xdp.mode other than none"))
			}
			out.Interfaces = append(out.Interfaces, string(v.v))
		}
		if !r.Interfaces.written() {
			out.Interfaces = uplinks
		}
		b.cfg.Sockets = append(b.cfg.Sockets, out)
	}
}

func (b *builder) hasSocket(name string) bool {
	return slices.ContainsFunc(b.cfg.Sockets, func(s Socket) bool { return s.Name == name })
}

// socketOf checks the socket of a rule.
func (b *builder) socketOf(r *rawRule, in judged) {
	bypass := r.Action.ok && r.Action.v == Bypass
	known := r.Socket.ok && b.ask(question{isSocket, string(r.Socket.v)}, in).known
	switch {
	case bypass && in != atIngress:
		b.add(r.Action.at, bad("only policy.ingress can bypass the kernel").or("move the rule there, or write action: accept"))
	case bypass && !r.Socket.written():
		b.add(r.at, bad("`socket` is missing").or("name the entry of sockets: that the packets go to"))
	case r.Socket.written() && r.Action.ok && !bypass:
		b.add(r.Socket.at, bad("a socket goes with action: bypass").or("remove it, or write action: bypass"))
	case r.Socket.ok && !known:
		b.add(r.Socket.at, b.noSocket(string(r.Socket.v)))
	}
}

func (b *builder) noSocket(name string) problem {
	var all []string
	for _, s := range b.cfg.Sockets {
		all = append(all, s.Name)
	}
	p := bad("no socket is named %q", name)
	if near := nearest(name, all); near != "" {
		return p.or("did you mean %s?", near)
	}
	return p.or("write it under sockets:")
}
