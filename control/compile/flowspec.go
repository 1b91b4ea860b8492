package compile

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"sluice/bgp/flowspec"
	"sluice/xdp"
	"sluice/xdp/classify"
)

const (
	// flowSpecEntries bounds what one FlowSpec rule becomes in the tables: rules times the alternatives of each.
	flowSpecEntries = 256
	// flowSpecBurst is the least burst of a limit in bytes, so that the largest packet passes.
	flowSpecBurst = 65536
)

// TranslateFlowSpec says a rule in the terms of XDP's overlay, but for its key. No rules of its own: no packet can match. An error
// names the rule and what cannot be said.
//
// Accept, which includes what conforms to a rate, ends the search among FlowSpec rules alone, and the file's rules are asked
// next: a neighbor's rule never opens what the operator's shut.
//
// sockets are those that redirects are handed to, by their targets: a neighbor chooses among what the operator configured.
func TranslateFlowSpec(rule flowspec.Rule, actions []flowspec.Action, sockets map[string]string) (xdp.FlowSpecFilter, error) {
	f, err := flowSpecActions(actions, sockets)
	if err == nil {
		f.Protocols, f.Rules, err = flowSpecRules(rule)
	}
	if err != nil {
		return xdp.FlowSpecFilter{}, fmt.Errorf("FlowSpec rule %s: %w", rule, err)
	}
	if entries := flowSpecSize(f.Rules); entries > flowSpecEntries {
		return xdp.FlowSpecFilter{}, fmt.Errorf("FlowSpec rule %s: it takes %d table entries, at most %d are allowed: use fewer alternatives",
			rule, entries, flowSpecEntries)
	}
	return f, nil
}

// flowSpecSize is how many entries the rules take at most.
func flowSpecSize(rules []classify.Rule) (entries int) {
	for i := range rules {
		r := &rules[i]
		entries += max(1, len(r.Ports)) * max(1, len(r.SourcePorts)) * max(1, len(r.Lengths)) * max(1, len(r.ICMPTypes))
	}
	return entries
}

// flowSpecActions is what the rule does. Discard ends it all, whatever else is asked for, but for samples.
func flowSpecActions(actions []flowspec.Action, sockets map[string]string) (f xdp.FlowSpecFilter, err error) {
	f.Sample = slices.ContainsFunc(actions, func(a flowspec.Action) bool { return a.Kind == flowspec.Sample })
	for _, a := range actions {
		if a.Kind <= flowspec.RatePackets && a.Rate == 0 {
			return xdp.FlowSpecFilter{Drop: true, Sample: f.Sample}, nil
		}
	}
	for _, a := range actions {
		switch a.Kind {
		case flowspec.RateBytes:
			f.Bytes, err = flowSpecLimiter(a)
		case flowspec.RatePackets:
			f.Packets, err = flowSpecLimiter(a)
		case flowspec.GoOn:
			f.GoesOn = true
		case flowspec.Mark:
			f.DSCP = &a.DSCP
		case flowspec.Redirect, flowspec.RedirectIP:
			f.Socket, err = flowSpecSocket(a, sockets)
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

func flowSpecSocket(a flowspec.Action, sockets map[string]string) (string, error) {
	socket := sockets[a.Target]
	switch {
	case a.Copy:
		return "", fmt.Errorf("XDP copies no packets: %s", a)
	case socket == "":
		return "", fmt.Errorf("no socket is configured for it (bgp.flowspec.redirect): %s", a)
	}
	return socket, nil
}

// flowSpecLimiter allows a second's worth at once.
func flowSpecLimiter(a flowspec.Action) (*classify.Limiter, error) {
	rate := math.Round(float64(a.Rate))
	if a.Kind == flowspec.RatePackets {
		if rate < 1 {
			return nil, fmt.Errorf("%g packets per second are fewer than XDP can count: at least 1", a.Rate)
		}
		packets := uint64(min(rate, classify.MaxPacketRate))
		return &classify.Limiter{Rate: packets, Burst: packets}, nil
	}
	if rate*8 < classify.MinBitRate {
		return nil, fmt.Errorf("%g bytes per second are fewer than XDP can count: at least %d", a.Rate, classify.MinBitRate/8)
	}
	bits := uint64(min(rate*8, classify.MaxBitRate))
	return &classify.Limiter{Bits: true, Rate: bits, Burst: max(bits/8, flowSpecBurst)}, nil
}

// flowSpecRules are alternatives that together match what the rule does, and of which protocols; nil: of all.
func flowSpecRules(rule flowspec.Rule) (protocols []uint8, out []classify.Rule, err error) {
	does := classify.Rule{Protocol: classify.AnyProtocol}
	if err := flowSpecAddresses(rule, &does); err != nil {
		return nil, nil, err
	}
	sets, err := flowSpecSets(rule)
	if err != nil || sets.never() {
		return nil, nil, err
	}
	does.Lengths, does.DSCP, does.ICMPTypes = sets.lengths, sets.dscp, sets.icmp
	for _, ports := range sets.ports {
		for _, flags := range sets.flags {
			for _, fragment := range sets.fragments {
				r := does
				r.Fragment = fragment
				r.Ports, r.SourcePorts = ports.dst, ports.src
				r.TCPMask, r.TCPFlags = flags.mask, flags.value
				out = append(out, r)
			}
		}
	}
	if len(sets.protocols) == 256 {
		return nil, out, nil
	}
	return sets.protocols, out, nil
}

// flowSpecAddresses always names an address list, or the rule would be of both families.
func flowSpecAddresses(rule flowspec.Rule, r *classify.Rule) error {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if rule.Family == flowspec.IPv6 {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	r.To = []netip.Prefix{all}
	for _, c := range rule.Components {
		if c.Offset != 0 {
			return fmt.Errorf("XDP cannot look behind an offset of an address: %s", c)
		}
		switch c.Type {
		case flowspec.Destination:
			r.To = []netip.Prefix{c.Prefix}
		case flowspec.Source:
			r.From = []netip.Prefix{c.Prefix}
		}
	}
	return nil
}
