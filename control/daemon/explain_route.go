package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/host"
	"sluice/tc"
)

// judgesForwarded says whether the egress hook of a role judges what the kernel forwards. A workload's own ingress policy has
// judged at the hook before.
func judgesForwarded(r tc.Role) bool {
	return r == tc.RoleUplink || r == tc.RoleTunnel || r == tc.RoleDownstream
}

// leavesBy is host.LeavesBy for the packet, as it is now. What keeps it from leaving in one piece is told of with the last answer.
func (e *explainer) leavesBy(ctx context.Context, in string) (string, error) {
	to, mtu, err := e.d.host.LeavesBy(ctx, in, e.seen.Src, e.seen.Dst)
	refusal := new(host.Refusal)
	if !errors.As(err, &refusal) {
		if to != "" && e.seen.Length > mtu && e.tooLarge(to, mtu) {
			to = ""
		}
		return to, err
	}
	why := ""
	if refusal.Blackhole() {
		why = e.blackhole()
	}
	if why == "" {
		why = "the kernel forwards it nowhere: " + refusal.Error()
	}
	e.lost(why)
	return "", nil
}

// tooLarge says what the kernel does with a packet that is larger than the MTU of the link, and whether that is to send nothing on.
func (e *explainer) tooLarge(to string, mtu int) (answered bool) {
	larger := fmt.Sprintf("larger than the MTU of %s, %d: ", to, mtu)
	if e.seen.Dst.Is6() {
		e.lost(larger + "the kernel answers with packet too big (ICMPv6)")
		return true
	}
	e.out.Hooks[len(e.out.Hooks)-1].TooLarge = larger + "the kernel forwards it in fragments, or where DF is set answers with fragmentation needed (ICMP)"
	return false
}

// lost adds to the last answer why the packet goes nowhere, where that is known.
func (e *explainer) lost(why string) { e.out.Hooks[len(e.out.Hooks)-1].Lost = why }

// blackhole tells of that of a strict prefix, once a packet has met a blackhole; "": it was none of ours.
func (e *explainer) blackhole() string { return blackholeOf(e.d.liveConfig(), e.seen.Dst) }

func blackholeOf(cfg *config.Config, dst netip.Addr) string {
	var longest netip.Prefix
	for _, t := range cfg.Tunnels {
		for _, p := range t.Peers {
			for _, x := range p.Prefixes {
				if t.Strict && x.Contains(dst) && (!longest.IsValid() || x.Bits() > longest.Bits()) {
					longest = x
				}
			}
		}
	}
	if !longest.IsValid() {
		return ""
	}
	return fmt.Sprintf("no tunnel to %s is up, and its blackhole takes what must not leave in clear (strict)", longest)
}

// notFrom says that no peer of a tunnel of ours may send from an address, which the tunnel drops before any hook; "": one may, or
// the interface is no such tunnel.
func notFrom(want *compile.Desired, name string, src netip.Addr) string {
	var may []netip.Prefix
	ours := false
	for _, t := range want.WireGuard.Tunnels {
		for _, p := range t.Peers {
			if t.Name == name {
				ours, may = true, append(may, p.AllowedIPs...)
			}
		}
	}
	for _, t := range want.IPsec.Tunnels {
		for _, p := range t.Peers {
			if t.Name == name {
				ours, may = true, append(may, p.Prefixes...)
			}
		}
	}
	if !ours || slices.ContainsFunc(may, func(p netip.Prefix) bool { return p.Contains(src) }) {
		return ""
	}
	const most = 8
	var list []string
	for _, p := range may[:min(len(may), most)] {
		list = append(list, p.String())
	}
	if more := len(may) - most; more > 0 {
		list = append(list, fmt.Sprintf("%d more", more))
	}
	return fmt.Sprintf("no peer of %s may send this: the tunnel drops it before any hook, as %s is in none of its prefixes (%s)", name, src, strings.Join(list, " "))
}
