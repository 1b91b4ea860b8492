package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// A chain of its own judges what leaves by the uplink, so that replies do not walk it.

// loadIPTables writes one rule for each prefix.
func loadIPTables(backend string) func(context.Context, *workshop, *Site, []netip.Prefix) (func() error, error) {
	return func(ctx context.Context, w *workshop, s *Site, list []netip.Prefix) (func() error, error) {
		var b strings.Builder
		b.WriteString("*filter\n:FORWARD ACCEPT [0:0]\n:egress - [0:0]\n-A FORWARD -i " + work + " -o " + uplink + " -j egress\n")
		for _, p := range list {
			fmt.Fprintf(&b, "-A egress -d %s -j DROP\n", p)
		}
		b.WriteString("COMMIT\n")
		return filter(ctx, w, s, b.String(), "iptables-"+backend+"-restore")
	}
}

// filter feeds a tool in A, behind plain forwarding in both gateways.
func filter(ctx context.Context, w *workshop, s *Site, stdin, tool string, args ...string) (func() error, error) {
	if _, err := loadPlain(ctx, w, s, nil); err != nil {
		return nil, err
	}
	_, err := s.A.Box.Run(ctx, stdin, tool, args...)
	return nothing, err
}

// loadIPSet puts all prefixes into one set, and asks it in one rule.
func loadIPSet(ctx context.Context, w *workshop, s *Site, list []netip.Prefix) (func() error, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "create listed hash:net family inet hashsize 1024 maxelem %d\n", max(65536, len(list)))
	for _, p := range list {
		fmt.Fprintf(&b, "add listed %s\n", p)
	}
	closer, err := filter(ctx, w, s, b.String(), "ipset", "restore")
	if err != nil {
		return nil, err
	}
	_, err = s.A.Box.Run(ctx, "", "iptables-legacy", "-w", "-A", "FORWARD", "-i", work, "-o", uplink, "-m", "set", "--match-set", "listed", "dst", "-j", "DROP")
	return closer, err
}

// loadNFTSet puts them into one set of nftables.
func loadNFTSet(ctx context.Context, w *workshop, s *Site, list []netip.Prefix) (func() error, error) {
	rules := "table inet bench {\n" + nftSet(list) + "chain judge { type filter hook forward priority 0; policy accept;\n" +
		`iifname "` + work + `" oifname "` + uplink + `" ip daddr @listed drop; }` + "\n}\n"
	return filter(ctx, w, s, rules, "nft", "-f", "-")
}
