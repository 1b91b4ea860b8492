package compile

import (
	"fmt"
	"slices"

	"sluice/control/config"
	"sluice/xdp/abi"
	"sluice/xdp/xsk"
)

// sockets are the doors of bypass rules. The data path knows a socket by a hash of its name, which two names of one file
// must not share.
func (c *compiler) sockets() []xsk.Socket {
	var out []xsk.Socket
	names := map[uint32]string{}
	pairs := 0
	for n, s := range c.cfg.Sockets {
		path := fmt.Sprintf("sockets[%d]", n)
		if other, taken := names[xsk.ID(s.Name)]; taken {
			c.fail(s.Pos, path+".name", fmt.Sprintf("the data path cannot tell %s from %s", s.Name, other), "give one of them another name")
		}
		names[xsk.ID(s.Name)] = s.Name
		if pairs += len(s.Interfaces); pairs > abi.MaxSockets {
			c.fail(s.Pos, path, fmt.Sprintf("%d pairs of socket and interface, %d fit", pairs, abi.MaxSockets), "name fewer interfaces")
		}
		if !c.bypassed(s.Name) {
			c.warn = append(c.warn, "socket "+s.Name+": nothing hands packets to it")
		}
		interfaces := slices.Sorted(slices.Values(s.Interfaces))
		out = append(out, xsk.Socket{Name: s.Name, Interfaces: interfaces})
	}
	slices.SortFunc(out, func(a, b xsk.Socket) int { return compareNames(a.Name, b.Name) })
	return out
}

func (c *compiler) bypassed(socket string) bool {
	return slices.ContainsFunc(c.cfg.Policy.Ingress.Rules, func(r config.Rule) bool { return r.Socket == socket }) ||
		c.cfg.BGP != nil && slices.ContainsFunc(c.cfg.BGP.FlowSpec.Redirects, func(r config.FlowSpecRedirect) bool { return r.Socket == socket })
}
