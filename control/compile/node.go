package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/config"
	"sluice/control/node"
	"sluice/xdp/classify"
)

// node is what the file wants of a node image. Any other machine has its own ways to a host name, a clock and a login.
func (c *compiler) node() node.State {
	n := c.cfg.Node
	if !c.facts.Image {
		if len(n.NTP) > 0 || n.SSH != nil || n.Console.Login {
			c.warn = append(c.warn, "node.ntp, node.ssh and node.console are of the node image: on this machine nothing is done for them")
		}
		return node.State{}
	}
	s := node.State{HostName: n.Name, DNS: n.DNS, NTP: n.NTP}
	if n.Console.Login {
		s.Console = &node.Console{HashFile: n.Console.PasswordHashFile}
	}
	if n.SSH == nil {
		return s
	}
	from, some := c.managedFrom(n.SSH.Port)
	if !some {
		c.warn = append(c.warn, fmt.Sprintf("node.ssh: management.accept lets nobody come to TCP port %d, so no SSH server runs; add {protocol: tcp, ports: [%[1]d], from: [...]} there", n.SSH.Port))
		return s
	}
	s.SSH = &node.SSH{Port: n.SSH.Port, Keys: n.SSH.AuthorizedKeys, From: from}
	return s
}

// managedFrom are the sources that management: lets come to a TCP port, nil for all; some is false where there are none.
func (c *compiler) managedFrom(port uint16) (from []netip.Prefix, some bool) {
	const tcp = 6
	for _, m := range c.cfg.Management {
		open := len(m.Ports) == 0 || slices.ContainsFunc(m.Ports, func(r config.PortRange) bool { return r.First <= port && port <= r.Last })
		if !open || m.Protocol != tcp && m.Protocol != config.AnyProtocol {
			continue
		}
		sources := c.resolve(m.From)
		if sources == nil {
			return nil, true
		}
		from = append(from, sources...)
	}
	return sortedPrefixes(from), len(from) > 0
}

const ntpPort = 123

// clock lets a node image ask the servers of its time.
func (s *systemRules) clock() {
	if !s.c.facts.Image {
		return
	}
	for _, server := range s.c.cfg.Node.NTP {
		s.add(fmt.Sprintf("ntp-%s", server), classify.Rule{From: s.self, To: hostPrefixes([]netip.Addr{server}), Protocol: protoUDP, Ports: onePort(ntpPort)})
	}
}
