package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// ruleOf translates for a request.
func ruleOf(r Rule) *netlink.Rule {
	out := netlink.NewRule()
	out.Priority, out.Table, out.IifName, out.OifName, out.Protocol = r.Priority, r.Table, r.InLink, r.OutLink, RouteProtocol
	if r.SuppressGroup != 0 {
		out.SuppressIfgroup = r.SuppressGroup
	}
	if r.Shortest != 0 {
		out.SuppressPrefixlen = r.Shortest - 1 // which is passed over as well
	}
	if r.Mask != 0 {
		out.Mark, out.Mask = r.Mark, &r.Mask
	}
	if r.From.IsValid() {
		out.Src = ipNet(r.From)
	}
	if r.To.IsValid() {
		out.Dst = ipNet(r.To)
	}
	if r.Prohibit {
		out.Type = unix.RTN_PROHIBIT
	}
	out.Family = netlink.FAMILY_V4
	if r.IPv6 {
		out.Family = netlink.FAMILY_V6
	}
	return out
}

// fromRule translates what the kernel has. The library does not read the action back, but of ours only a prohibition looks
// into no table. The kernel tells a mask of all bits where there is a mark alone, and none of ours is that.
func fromRule(r netlink.Rule, ipv6 bool) Rule {
	out := Rule{
		Priority: r.Priority, IPv6: ipv6, InLink: r.IifName, OutLink: r.OifName, Mark: r.Mark, Table: r.Table,
		SuppressGroup: max(r.SuppressIfgroup, 0), Shortest: r.SuppressPrefixlen + 1, Prohibit: r.Table == unix.RT_TABLE_UNSPEC,
	}
	if r.Mask != nil {
		out.Mask = *r.Mask
	}
	if r.Src != nil {
		out.From = prefixOf(r.Src)
	}
	if r.Dst != nil {
		out.To = prefixOf(r.Dst)
	}
	return out
}

func (h *Host) observeRules() ([]Rule, error) {
	var out []Rule
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := netdump.List(func() ([]netlink.Rule, error) { return h.nl.RuleList(fam) })
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		for _, r := range rules {
			if r.Protocol == RouteProtocol {
				out = append(out, fromRule(r, fam == netlink.FAMILY_V6))
			}
		}
	}
	slices.SortFunc(out, func(a, b Rule) int {
		v6 := map[bool]int{true: 1}
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(v6[a.IPv6], v6[b.IPv6]),
			cmp.Compare(a.InLink, b.InLink), cmp.Compare(a.OutLink, b.OutLink), a.To.Compare(b.To), a.From.Compare(b.From), cmp.Compare(a.Table, b.Table))
	})
	return out, nil
}

// apply adds the rule. A rule by the name of a link needs no such link yet.
func (o setRule) apply(_ context.Context, h *Host) error {
	err := h.nl.RuleAdd(ruleOf(o.Rule))
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	have, err := h.observeRules()
	if err != nil || slices.Contains(have, o.Rule) {
		return err
	}
	return errors.New("there is an equal rule that is not ours: remove it, or choose another priority")
}

func (o dropRule) apply(_ context.Context, h *Host) error {
	have, err := h.observeRules()
	if err != nil || !slices.Contains(have, o.Rule) {
		return err
	}
	return h.nl.RuleDel(ruleOf(o.Rule))
}
