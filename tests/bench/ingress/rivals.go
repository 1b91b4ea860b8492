package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/tests/bench/gateway"
	"sluice/tests/bench/lane"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

// Rival is one way to filter: what the report calls it, and how a site gets it.
type Rival struct {
	Key    string
	Label  string // in tables and plots, the same everywhere
	Colour string // in plots, the same everywhere
	Kernel bool   // one of the kernel's own filters, which targets name
	// load makes the site drop what the content says, and returns how to take that away.
	load func(ctx context.Context, w *workshop, s *lane.Site, c *Content) (func() error, error)
	// fits says whether it can hold the content, in a time that a benchmark has.
	fits func(c *Content, o Options) bool
}

// Keys of rivals that targets and tables name.
const (
	Nothing = "nothing"
	Floor   = "xdp-drop"
	Pass    = "xdp-pass" // in the forwarding comparison: what no program can avoid there
	Sluice  = "sluice"
	List    = "sluice-list" // in the forwarding comparison, where Sluice alone holds rules
	Path    = "sluice-path"
	Parse   = "parse"
	LPM     = "xdp-lpm"
	IPTable = "iptables"

	IPTableNFT = "iptables-nft"
)

// Rivals are all of them, in the order of tables.
var Rivals = []Rival{
	{Key: Nothing, Label: "no program at all", Colour: "#7a7a7a", load: loadNothing, fits: always},
	{Key: Floor, Label: "XDP_DROP alone", Colour: "#9a9a9a", load: xdpProgram("drop"), fits: always},
	{Key: Pass, Label: "XDP_PASS alone", Colour: "#4d4d4d", load: xdpProgram("pass"), fits: always},
	{Key: Parse, Label: "parse only", Colour: "#5b7f95"},
	{Key: Sluice, Label: "Sluice", Colour: "#d1342f", load: loadSluice(false), fits: always},
	{Key: List, Label: "Sluice, list", Colour: "#f0857d", load: loadSluice(false), fits: always},
	{Key: Path, Label: "Sluice with tcx", Colour: "#8e1b5c", load: loadSluice(true), fits: always},
	{Key: LPM, Label: "XDP with LPM_TRIE", Colour: "#e58e1a", load: xdpProgram("lpm"), fits: listed},
	{Key: "xdp-filter", Label: "xdp-filter", Colour: "#b8a400", load: loadXDPFilter, fits: fitsXDPFilter},
	{Key: "ipset-raw", Label: "ipset, raw PREROUTING", Colour: "#1b7f3b", Kernel: true, load: loadIPSet("raw", "PREROUTING"), fits: listed},
	{Key: "ipset", Label: "ipset, filter FORWARD", Colour: "#63b56b", Kernel: true, load: loadIPSet("filter", "FORWARD"), fits: listed},
	{Key: "nft-netdev", Label: "nftables set, netdev ingress", Colour: "#1f4fa3", Kernel: true,
		load: loadNFT("netdev", "type filter hook ingress device "+lane.Uplink+" priority 0"), fits: fitsNFT},
	{Key: "nft-set", Label: "nftables set, inet forward", Colour: "#6fa3e0", Kernel: true,
		load: loadNFT("inet", "type filter hook forward priority 0"), fits: fitsNFT},
	{Key: "iptables-raw", Label: "iptables legacy, raw PREROUTING", Colour: "#5a3d9a", Kernel: true, load: loadIPTables("legacy", "raw", "PREROUTING"), fits: fitsIPTables},
	{Key: IPTable, Label: "iptables legacy, FORWARD", Colour: "#9b7fd1", Kernel: true, load: loadIPTables("legacy", "filter", "FORWARD"), fits: fitsIPTables},
	{Key: IPTableNFT, Label: "iptables nft, FORWARD", Colour: "#c08ab8", Kernel: true, load: loadIPTables("nft", "filter", "FORWARD"), fits: fitsIPTables},
}

// rival finds one by its key.
func rival(key string) Rival {
	i := slices.IndexFunc(Rivals, func(r Rival) bool { return r.Key == key })
	if i < 0 {
		return Rival{Key: key, Label: key, Colour: "#000000"}
	}
	return Rivals[i]
}

func always(*Content, Options) bool     { return true }
func listed(c *Content, _ Options) bool { return c.Kind != Rules }

func fitsNFT(c *Content, o Options) bool { return c.Kind != Rules && c.Size() <= o.MaxNFT }

func fitsIPTables(c *Content, o Options) bool { return c.Kind == Rules && c.Size() <= o.MaxIPTables }

// fitsXDPFilter: its map holds 10,000 addresses, and no prefixes.
func fitsXDPFilter(c *Content, _ Options) bool { return c.Kind == Hosts && c.Size() <= 10_000 }

func loadNothing(context.Context, *workshop, *lane.Site, *Content) (func() error, error) {
	return func() error { return nil }, nil
}

func loadSluice(tcx bool) func(context.Context, *workshop, *lane.Site, *Content) (func() error, error) {
	return func(ctx context.Context, _ *workshop, s *lane.Site, c *Content) (func() error, error) {
		want := gateway.State{XDP: &c.want.XDP}
		if tcx {
			want.TC = &c.want.TC
		}
		g, err := gateway.New(ctx, s.Box, want)
		if err != nil {
			return nil, err
		}
		return g.Close, nil
	}
}

// loadIPSet puts all addresses into one set, and asks it in one rule.
func loadIPSet(table, chain string) func(context.Context, *workshop, *lane.Site, *Content) (func() error, error) {
	return func(ctx context.Context, _ *workshop, s *lane.Site, c *Content) (func() error, error) {
		kind := "hash:net"
		if c.Kind == Hosts {
			kind = "hash:ip"
		}
		var b strings.Builder
		fmt.Fprintf(&b, "create listed %s family inet hashsize 1024 maxelem %d\n", kind, max(65536, len(c.Prefixes)))
		for _, p := range c.Prefixes {
			fmt.Fprintf(&b, "add listed %s\n", addressOr(p, c.Kind))
		}
		if _, err := s.Box.Run(ctx, b.String(), "ipset", "restore"); err != nil {
			return nil, err
		}
		_, err := s.Box.Run(ctx, "", "iptables-legacy", "-w", "-t", table, "-A", chain, "-m", "set", "--match-set", "listed", "src", "-j", "DROP")
		return func() error { return nil }, err
	}
}

// loadNFT puts all addresses into one set: a hash of hosts, or intervals of prefixes.
func loadNFT(family, hook string) func(context.Context, *workshop, *lane.Site, *Content) (func() error, error) {
	return func(ctx context.Context, _ *workshop, s *lane.Site, c *Content) (func() error, error) {
		var b strings.Builder
		flags := "flags interval;"
		if c.Kind == Hosts {
			flags = fmt.Sprintf("size %d;", len(c.Prefixes))
		}
		fmt.Fprintf(&b, "table %s bench {\nset listed { type ipv4_addr; %s elements = {\n", family, flags)
		for _, p := range classifytest.Outermost(c.Prefixes) {
			fmt.Fprintf(&b, "%s,\n", addressOr(p, c.Kind))
		}
		fmt.Fprintf(&b, "} }\nchain judge { %s; policy accept; ip saddr @listed drop; }\n}\n", hook)
		_, err := s.Box.Run(ctx, b.String(), "nft", "-f", "-")
		return func() error { return nil }, err
	}
}

func addressOr(p netip.Prefix, kind Kind) string {
	if kind == Hosts {
		return p.Addr().String()
	}
	return p.String()
}

// loadIPTables writes the rules one for one: the same first match decides.
func loadIPTables(backend, table, chain string) func(context.Context, *workshop, *lane.Site, *Content) (func() error, error) {
	return func(ctx context.Context, _ *workshop, s *lane.Site, c *Content) (func() error, error) {
		var b strings.Builder
		fmt.Fprintf(&b, "*%s\n:%s ACCEPT [0:0]\n", table, chain)
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "-A %s%s\n", chain, iptablesRule(r))
		}
		b.WriteString("COMMIT\n")
		_, err := s.Box.Run(ctx, b.String(), "iptables-"+backend+"-restore")
		return func() error { return nil }, err
	}
}

func iptablesRule(r classify.Rule) string {
	var b strings.Builder
	if r.From != nil {
		fmt.Fprintf(&b, " -s %s", r.From[0])
	}
	if r.To != nil {
		fmt.Fprintf(&b, " -d %s", r.To[0])
	}
	if r.Protocol != classify.AnyProtocol {
		fmt.Fprintf(&b, " -p %s", map[int]string{6: "tcp", 17: "udp"}[r.Protocol])
	}
	if r.Ports != nil {
		fmt.Fprintf(&b, " --dport %s", portText(r.Ports[0], ":"))
	}
	fmt.Fprintf(&b, " -j %s", strings.ToUpper(text(r.Action)))
	return b.String()
}

// errNoFilter says that xdp-filter did not leave what we look for.
var errNoFilter = errors.New("xdp-filter is not on the uplink as expected")
