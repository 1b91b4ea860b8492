package compile

import (
	"sluice/control/config"
	"sluice/xdp/classify"
)

// match fills what a rule asks for beside addresses, protocol and ports.
func (c *compiler) match(r *config.Rule, out *classify.Rule) {
	out.TCPMask, out.TCPFlags = r.TCPFlags.Mask, r.TCPFlags.Set
	for _, t := range r.ICMPTypes {
		i := classify.ICMPRange{TypeFirst: t.Type, TypeLast: t.Type, CodeLast: 255}
		if t.Code != config.AnyCode {
			i.CodeFirst, i.CodeLast = uint8(t.Code), uint8(t.Code)
		}
		out.ICMPTypes = append(out.ICMPTypes, i)
	}
	out.Fragment = fragmentMatch(r.Fragment)
	out.VLANs, out.Lengths = ranges(r.VLANs), ranges(r.Lengths)
	for _, d := range r.DSCP {
		out.DSCP |= 1 << d
	}
	out.TTL = r.TTL
	// A link that is not there, as a tunnel's before it is made, has no index: nothing comes in by it. Its arrival
	// compiles again, as does that of one that comes back with another index.
	for _, name := range r.Interfaces {
		i := classify.Interface{Name: name}
		if link := c.link(name); link != nil {
			i.Index = uint32(link.Index)
		}
		out.Interfaces = append(out.Interfaces, i)
	}
}

func fragmentMatch(f config.FragmentMatch) classify.FragmentMatch {
	switch f {
	case config.FragmentWhole:
		return classify.FragmentNo
	case config.FragmentFragmented:
		return classify.FragmentYes
	case config.FragmentFirst:
		return classify.FragmentInitial
	case config.FragmentLater:
		return classify.FragmentLater
	default:
		return classify.FragmentAny
	}
}
