package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"sluice/xdp/classify/classifytest"
)

// unlisted are addresses that flows use here, and those that no list of the field holds.
var unlisted = []netip.Prefix{
	served, denied, netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"),
}

// deniedPrefixes are n prefixes that do not overlap, as a blocklist has them, in no order, with denied behind all others:
// so a denied packet is one that who walks a list meets last. No allowed flow matches any.
func deniedPrefixes(n int) []netip.Prefix {
	rng := rand.New(rand.NewPCG(5, uint64(n)))
	var out []netip.Prefix
	for _, p := range classifytest.Outermost(classifytest.Blocklist4(rng, n*3/2+64)) {
		if !overlaps(p) {
			out = append(out, p)
		}
	}
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return append(out[:n-1:n-1], denied)
}

func overlaps(p netip.Prefix) bool {
	for _, u := range unlisted {
		if u.Overlaps(p) {
			return true
		}
	}
	return false
}

// File is the configuration of a gateway of Sluice.
type File struct {
	XDP string // mode of the uplink
	// Ingress, From and To are denied, each by a rule of its own: by policy.ingress, on the way to the workload, and on
	// the way from it. Behind them stands what the policies accept, and the default drops.
	Ingress, From, To []netip.Prefix
	// Set is denied on the way from the workload by one rule.
	Set []netip.Prefix
	// Open says that nothing is denied by default either.
	Open bool
}

// accept is all that policies let through beside their lists.
const accept = "      - {name: served, from: [10.0.0.0/8], to: [10.0.0.0/8], protocol: tcp, ports: [5000-5999], action: accept}\n"

// YAML is the file of the gateway e.
func (f File) YAML(e *end) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "interfaces:\n  - {name: %s, role: uplink, addresses: [%s], xdp: {mode: %s}}\nroutes:\n", uplink, e.uplink, f.XDP)
	for _, p := range e.there {
		fmt.Fprintf(&b, "  - {prefix: %s, via: [%s]}\n", p, e.next)
	}
	// As many as nf_conntrack_max is here, so that both have room for as many.
	b.WriteString("conntrack: {max_entries: 262144}\nmanagement: {accept: [{name: ssh, protocol: tcp, ports: [22]}]}\n")
	if f.Set != nil {
		b.WriteString("sets: [{name: listed, files: [listed.netset]}]\n")
	}
	b.WriteString("policy:\n  ingress:\n")
	f.rules(&b, "from", f.Ingress, nil)
	b.WriteString("workloads:\n  - name: web\n    interface: " + work + "\n    addresses: [")
	for i, a := range e.addresses {
		b.WriteString([]string{"", ", "}[min(i, 1)] + a.String())
	}
	b.WriteString("]\n    ingress:\n")
	f.rules(&b, "from", f.From, nil)
	b.WriteString("    egress:\n")
	f.rules(&b, "to", f.To, f.Set)
	return []byte(b.String())
}

// rules is a policy: one rule per prefix, or one for the set.
func (f File) rules(b *strings.Builder, side string, list, set []netip.Prefix) {
	fate := "drop"
	if f.Open {
		fate = "accept"
	}
	fmt.Fprintf(b, "      default: %s\n", fate)
	if f.Open && list == nil && set == nil {
		return
	}
	b.WriteString("      rules:\n")
	for i, p := range list {
		fmt.Fprintf(b, "        - {name: d%d, %s: [%s], action: drop}\n", i, side, p)
	}
	if set != nil {
		fmt.Fprintf(b, "        - {name: listed, %s: [listed], action: drop}\n", side)
	}
	if !f.Open {
		b.WriteString("  " + accept)
	}
}

// netset is the set file.
func (f File) netset(string) ([]byte, error) {
	var b strings.Builder
	for _, p := range f.Set {
		fmt.Fprintln(&b, p)
	}
	return []byte(b.String()), nil
}
