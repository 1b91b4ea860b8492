package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/control/config"
	"sluice/xdp/classify"
)

// AcceptedInClear warns of rules of policy.ingress that accept what is behind tunnels, and do not say that it comes by them: a source is what its sender
// writes. Of a peer that has everything behind it (0.0.0.0/0) nothing is said: the world is there by the uplink, too.
func AcceptedInClear(cfg *config.Config, d *Desired) []string {
	peers := prefixesOfPeers(cfg)
	if len(peers) == 0 {
		return nil
	}
	policies := d.TC.Generation.Policies()
	i := slices.IndexFunc(policies, func(p classify.Policy) bool { return p.Name == "ingress" })
	if i < 0 {
		return nil
	}
	places := RulePlaces(cfg)
	var out []string
	var refused []netip.Prefix // before, at some interfaces
	for _, r := range policies[i].Rules {
		switch {
		case r.Shadow:
		case len(r.Interfaces) > 0 && r.Action == classify.Drop && r.Protocol == classify.AnyProtocol:
			refused = append(refused, r.From...)
		case len(r.Interfaces) == 0 && r.Action != classify.Drop:
			if from, by, found := peers.first(r.From, refused); found {
				at := places["ingress/"+r.Name]
				out = append(out, fmt.Sprintf("ingress/%s (%s:%d): accepts %s from every interface, in clear as well, though it is behind %s; write interfaces: [%s]",
					r.Name, at.File, at.Line, from, nameTunnels(by), strings.Join(by, ", ")))
			}
		}
	}
	return out
}

// peerPrefixes are by length, since a rule's sources are many and the lengths few.
type peerPrefixes map[int]map[netip.Prefix][]string

func prefixesOfPeers(cfg *config.Config) peerPrefixes {
	out := peerPrefixes{}
	for _, t := range cfg.Tunnels {
		for _, p := range t.Peers {
			for _, prefix := range p.Prefixes {
				if prefix.Bits() == 0 {
					continue
				}
				if out[prefix.Bits()] == nil {
					out[prefix.Bits()] = map[netip.Prefix][]string{}
				}
				if of := out[prefix.Bits()]; !slices.Contains(of[prefix], t.Name) {
					of[prefix] = append(of[prefix], t.Name)
				}
			}
		}
	}
	return out
}

// first is the first source that lies behind tunnels, all of it, and is not refused anywhere.
func (b peerPrefixes) first(sources, refused []netip.Prefix) (from netip.Prefix, by []string, found bool) {
	for _, from := range sources {
		if by := b.around(from); len(by) > 0 && !within(from, refused) {
			return from, by, true
		}
	}
	return from, nil, false
}

func (b peerPrefixes) around(p netip.Prefix) (tunnels []string) {
	for bits, of := range b {
		if whole, err := p.Addr().Prefix(bits); err == nil && bits <= p.Bits() {
			tunnels = append(tunnels, of[whole]...)
		}
	}
	slices.Sort(tunnels)
	return slices.Compact(tunnels)
}

func nameTunnels(list []string) string {
	if len(list) == 1 {
		return "tunnel " + list[0]
	}
	return "tunnels " + strings.Join(list, " and ")
}
