package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/tests/bench/gateway"
)

// Rival is one way to get packets through the gateways: what the report calls it, and how a site gets it.
type Rival struct {
	Key    string
	Label  string // in tables and plots, the same everywhere
	Colour string // in plots, the same everywhere
	// Denies says that it drops what the list holds; Strict, that it drops all else that is not served.
	Denies, Strict bool
	// Bypass says that packets do not take the kernel's forwarding in the client's gateway.
	Bypass bool
	// load brings both gateways about; list is what they deny. The closer takes it away.
	load func(ctx context.Context, w *workshop, s *Site, list []netip.Prefix) (func() error, error)
}

// Keys of rivals that targets and tables name.
const (
	Node       = "node"
	Plain      = "plain"
	XDPPass    = "xdp-pass"
	Conntrack  = "conntrack"
	NFT        = "nft"
	Routing    = "routing"
	Sluice     = "sluice"
	SluiceTCX  = "sluice-tcx"
	SluiceOpen = "sluice-open"

	None        = "none"
	Legacy      = "iptables-legacy"
	IPTablesNFT = "iptables-nft"
	IPSet       = "ipset"
	NFTSet      = "nft-set"
	SluiceRules = "sluice-rules"
	SluiceSet   = "sluice-set"
)

// Networking are the rivals of the first experiment, in the order of tables.
var Networking = []Rival{
	{Key: Node, Label: "node to node", Colour: "#7a7a7a", load: loadPlain},
	{Key: Plain, Label: "kernel forwarding", Colour: "#1f4fa3", load: loadPlain},
	{Key: XDPPass, Label: "kernel forwarding, XDP_PASS", Colour: "#4d4d4d", load: loadPass},
	{Key: Conntrack, Label: "kernel, conntrack", Colour: "#6fa3e0", load: loadConntrack},
	{Key: NFT, Label: "kernel, conntrack, nftables policy", Colour: "#5a3d9a", Denies: true, Strict: true, load: loadPolicy},
	{Key: Routing, Label: "eBPF host routing alone", Colour: "#e58e1a", Bypass: true, load: loadRouting},
	{Key: Sluice, Label: "Sluice", Colour: "#d1342f", Denies: true, Strict: true, Bypass: true, load: loadSluice("native")},
	{Key: SluiceTCX, Label: "Sluice, tcx alone", Colour: "#8e1b5c", Denies: true, Strict: true, Bypass: true, load: loadSluice("none")},
	{Key: SluiceOpen, Label: "Sluice, no rules", Colour: "#f0857d", Bypass: true, load: loadOpen},
}

// Filtering are the rivals of the second, where the gateway of the client denies and the other one forwards plainly.
var Filtering = []Rival{
	{Key: None, Label: "no filter", Colour: "#7a7a7a", load: loadPlainList},
	{Key: Legacy, Label: "iptables legacy", Colour: "#9b7fd1", Denies: true, load: loadIPTables("legacy")},
	{Key: IPTablesNFT, Label: "iptables nft", Colour: "#c08ab8", Denies: true, load: loadIPTables("nft")},
	{Key: IPSet, Label: "ipset", Colour: "#63b56b", Denies: true, load: loadIPSet},
	{Key: NFTSet, Label: "nftables set", Colour: "#2b6fb5", Denies: true, load: loadNFTSet},
	{Key: SluiceRules, Label: "Sluice, rules", Colour: "#d1342f", Denies: true, Bypass: true, load: loadFilter(false)},
	{Key: SluiceSet, Label: "Sluice, set", Colour: "#e8743b", Denies: true, Bypass: true, load: loadFilter(true)},
}

// rival finds one by its key.
func rival(key string) Rival {
	for _, list := range [][]Rival{Networking, Filtering} {
		if i := slices.IndexFunc(list, func(r Rival) bool { return r.Key == key }); i >= 0 {
			return list[i]
		}
	}
	return Rival{Key: key, Label: key, Colour: "#000000"}
}

func nothing() error { return nil }

// loadPlain lets the kernel forward, with no rule anywhere: conntrack is not in these namespaces.
func loadPlain(_ context.Context, _ *workshop, s *Site, _ []netip.Prefix) (func() error, error) {
	return nothing, errors.Join(s.A.plain(), s.B.plain())
}

func loadPlainList(ctx context.Context, w *workshop, s *Site, list []netip.Prefix) (func() error, error) {
	return loadPlain(ctx, w, s, list)
}

// nft loads rules into both gateways, behind plain forwarding.
func nft(ctx context.Context, s *Site, rules string) (func() error, error) {
	if err := errors.Join(s.A.plain(), s.B.plain()); err != nil {
		return nil, err
	}
	for _, e := range []*end{&s.A, &s.B} {
		if _, err := e.Box.Run(ctx, rules, "nft", "-f", "-"); err != nil {
			return nil, err
		}
	}
	return nothing, nil
}

// loadConntrack asks for the state of each packet, and does nothing with it.
func loadConntrack(ctx context.Context, _ *workshop, s *Site, _ []netip.Prefix) (func() error, error) {
	return nft(ctx, s, "table inet bench { chain judge { type filter hook forward priority 0; policy accept; ct state established accept; }\n}\n")
}

// loadPolicy is what a firewall of today is: what is established passes, the list is denied both ways, what is served is
// accepted, all else dropped.
func loadPolicy(ctx context.Context, _ *workshop, s *Site, list []netip.Prefix) (func() error, error) {
	return nft(ctx, s, "table inet bench {\n"+nftSet(list)+`chain judge {
		type filter hook forward priority 0; policy drop;
		ct state established,related accept
		ip saddr @listed drop
		ip daddr @listed drop
		ip saddr 10.0.0.0/8 ip daddr 10.0.0.0/8 tcp dport 5000-5999 accept
	}
}
`)
}

func nftSet(list []netip.Prefix) string {
	var b strings.Builder
	b.WriteString("set listed { type ipv4_addr; flags interval; elements = {\n")
	for _, p := range list {
		fmt.Fprintf(&b, "%s,\n", p)
	}
	b.WriteString("} }\n")
	return b.String()
}

// loadSluice is Sluice as a box runs it: a third of the list is denied by policy.ingress, a third on the way to the
// workload, a third on the way from it, each prefix by a rule of its own; conntrack as always.
func loadSluice(mode string) func(context.Context, *workshop, *Site, []netip.Prefix) (func() error, error) {
	return func(ctx context.Context, w *workshop, s *Site, list []netip.Prefix) (func() error, error) {
		third := len(list) / 3
		f := File{XDP: mode, Ingress: list[:third], From: list[third : 2*third], To: list[2*third:]} // denied is the last
		return w.gateways(ctx, f, &s.A, &s.B)
	}
}

// loadOpen has no rules at all. Conntrack is there: Sluice has no mode without.
func loadOpen(ctx context.Context, w *workshop, s *Site, _ []netip.Prefix) (func() error, error) {
	return w.gateways(ctx, File{XDP: "native", Open: true}, &s.A, &s.B)
}

// loadFilter denies the list on the way from the workload of A: one rule for each prefix, or one for all.
func loadFilter(set bool) func(context.Context, *workshop, *Site, []netip.Prefix) (func() error, error) {
	return func(ctx context.Context, w *workshop, s *Site, list []netip.Prefix) (func() error, error) {
		f := File{XDP: "none", Open: true, To: list}
		if set {
			f.To, f.Set = nil, list
		}
		if err := s.B.plain(); err != nil {
			return nil, err
		}
		return w.gateways(ctx, f, &s.A)
	}
}

// gateways runs Sluice with a file in some boxes.
func (w *workshop) gateways(ctx context.Context, f File, in ...*end) (func() error, error) {
	var closers []func() error
	closer := func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	for _, e := range in {
		g, err := gateway.Open(e.Box)
		if err != nil {
			return nil, errors.Join(err, closer())
		}
		closers = append(closers, g.Close)
		if err := configure(ctx, g, f, e); err != nil {
			return nil, errors.Join(err, closer())
		}
		e.gateway = g
	}
	return closer, nil
}

// configure takes a file the whole way.
func configure(ctx context.Context, g *gateway.Gateway, f File, e *end) error {
	facts, err := g.Facts(ctx)
	if err != nil {
		return err
	}
	want, err := gateway.Desire(f.YAML(e), f.netset, facts)
	if err != nil {
		return err
	}
	return g.Apply(ctx, gateway.Whole(want))
}
