package compile

import (
	"fmt"
	"math"
	"net/netip"

	"sluice/bgp/flowspec"
	"sluice/xdp/classify"
)

const (
	// flowSpecEntries bounds what one FlowSpec rule becomes in the tables: rules times the alternatives of each.
	flowSpecEntries = 256
	// flowSpecSample is one in so many packets that a rule with the action sample logs; RFC 8955 leaves it open.
	flowSpecSample = 1000
	// flowSpecBurst is the least burst of a limit in bytes, so that the largest packet passes.
	flowSpecBurst = 65536
)

// FlowSpec is a FlowSpec rule in the classifier's terms. Its rules share the id, and with it counters and bucket; the order
// among them does not matter. None: no packet can match.
//
// They belong in a policy of their own with the default continue. There Accept, which includes what conforms to Limiter,
// ends the search among FlowSpec rules alone, and the file's rules are asked next: a neighbor's rule never opens what the
// operator's shut.
type FlowSpec struct {
	Rules   []classify.Rule
	Limiter *classify.Limiter // of the rules with the action limit
}

// TranslateFlowSpec says a rule in the classifier's terms. An error names the rule and what cannot be said.
func TranslateFlowSpec(rule flowspec.Rule, actions []flowspec.Action, id, beyond uint32) (FlowSpec, error) {
	does := classify.Rule{ID: id, Name: rule.String(), Protocol: classify.AnyProtocol}
	limiter, err := flowSpecActions(actions, &does, beyond)
	if err != nil {
		return FlowSpec{}, fmt.Errorf("FlowSpec rule %s: %w", rule, err)
	}
	rules, err := flowSpecRules(rule, does)
	if err != nil {
		return FlowSpec{}, fmt.Errorf("FlowSpec rule %s: %w", rule, err)
	}
	if entries := flowSpecSize(rules); entries > flowSpecEntries {
		return FlowSpec{}, fmt.Errorf("FlowSpec rule %s: it takes %d table entries, at most %d are allowed: use fewer alternatives",
			rule, entries, flowSpecEntries)
	}
	return FlowSpec{Rules: rules, Limiter: limiter}, nil
}

// flowSpecSize is how many entries the rules take at most.
func flowSpecSize(rules []classify.Rule) (entries int) {
	for i := range rules {
		r := &rules[i]
		entries += max(1, len(r.Ports)) * max(1, len(r.SourcePorts)) * max(1, len(r.Lengths)) * max(1, len(r.ICMPTypes))
	}
	return entries
}

// flowSpecActions fills in what the rule does. Discard ends it all, whatever else is asked for.
func flowSpecActions(actions []flowspec.Action, r *classify.Rule, beyond uint32) (limiter *classify.Limiter, err error) {
	r.Action = classify.Accept
	for _, a := range actions {
		switch {
		case a.Kind <= flowspec.RatePackets && a.Rate == 0:
			r.Action, limiter = classify.Drop, nil
		case a.Kind == flowspec.Sample:
			r.Sample = flowSpecSample
		}
	}
	if r.Action == classify.Drop {
		return nil, nil
	}
	for _, a := range actions {
		switch a.Kind {
		case flowspec.RateBytes, flowspec.RatePackets:
			if limiter != nil {
				return nil, fmt.Errorf("it has two rates, and XDP keeps one for a rule")
			}
			if limiter, err = flowSpecLimiter(a, r.ID, beyond); err != nil {
				return nil, err
			}
			r.Action = classify.Limit
		case flowspec.GoOn:
			r.Shadow = true // it counts, samples and continues
		case flowspec.Redirect, flowspec.RedirectIP, flowspec.Mark:
			return nil, fmt.Errorf("XDP has no such action: %s", a)
		}
	}
	if r.Shadow && limiter != nil {
		return nil, fmt.Errorf("a rate cannot go on to later rules in XDP")
	}
	return limiter, nil
}

// flowSpecLimiter allows a second's worth at once.
func flowSpecLimiter(a flowspec.Action, id, beyond uint32) (*classify.Limiter, error) {
	l := &classify.Limiter{Rule: id, Beyond: beyond}
	rate := math.Round(float64(a.Rate))
	if a.Kind == flowspec.RatePackets {
		if rate < 1 {
			return nil, fmt.Errorf("%g packets per second are fewer than XDP can count: at least 1", a.Rate)
		}
		l.Rate = uint64(min(rate, classify.MaxPacketRate))
		l.Burst = l.Rate
		return l, nil
	}
	if rate*8 < classify.MinBitRate {
		return nil, fmt.Errorf("%g bytes per second are fewer than XDP can count: at least %d", a.Rate, classify.MinBitRate/8)
	}
	l.Bits, l.Rate = true, uint64(min(rate*8, classify.MaxBitRate))
	l.Burst = max(l.Rate/8, flowSpecBurst)
	return l, nil
}

// flowSpecRules are copies of does that together match what the rule does.
func flowSpecRules(rule flowspec.Rule, does classify.Rule) ([]classify.Rule, error) {
	if err := flowSpecAddresses(rule, &does); err != nil {
		return nil, err
	}
	sets, err := flowSpecSets(rule)
	if err != nil || sets.never() {
		return nil, err
	}
	does.Lengths, does.DSCP, does.ICMPTypes = sets.lengths, sets.dscp, sets.icmp
	var out []classify.Rule
	for _, protocol := range sets.protocols {
		for _, ports := range sets.ports {
			for _, flags := range sets.flags {
				for _, fragment := range sets.fragments {
					r := does
					r.Protocol, r.Fragment = protocol, fragment
					r.Ports, r.SourcePorts = ports.dst, ports.src
					r.TCPMask, r.TCPFlags = flags.mask, flags.value
					out = append(out, r)
				}
			}
		}
	}
	return out, nil
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
