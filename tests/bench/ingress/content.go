package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"sluice/control/compile"
	"sluice/tests/bench/lane"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

// Content is what every rival of a comparison is told to drop, in its own words.
type Content struct {
	Kind     Kind
	Prefixes []netip.Prefix   // Prefixes, Hosts
	Rules    []classify.Rule  // Rules: first match wins
	model    classify.Policy  // the rules as the reference model reads them
	want     *compile.Desired // by its file
}

// Kind is what a Content is made of.
type Kind string

// The kinds. Prefixes: a blocklist as FireHOL's, 60 % /32, 28 % /24, the rest /16 to /28. Hosts: addresses alone, for
// rivals that know no prefixes. Rules: 5-tuple rules of ClassBench's ACL shape.
const (
	Prefixes Kind = "prefixes"
	Hosts    Kind = "hosts"
	Rules    Kind = "rules"
)

// newContent makes the same one for the same arguments.
func newContent(kind Kind, n int) (*Content, error) {
	rng := rand.New(rand.NewPCG(3, uint64(n)))
	c := &Content{Kind: kind}
	switch kind {
	case Prefixes:
		c.Prefixes = keep(classifytest.Blocklist4(rng, n+n/50+64), n)
	case Hosts:
		seen := map[netip.Prefix]bool{}
		for len(c.Prefixes) < n {
			if p := netip.PrefixFrom(classifytest.Addr4(rng), 32); !special(p.Addr()) && !seen[p] {
				seen[p], c.Prefixes = true, append(c.Prefixes, p)
			}
		}
	case Rules:
		c.Rules = classifytest.Rules(rng, classifytest.ACL, n)
		for i := range c.Rules {
			c.Rules[i].Name = fmt.Sprintf("r%d", i)
		}
	}
	c.model = classify.Policy{Name: "ingress", Default: classify.Accept, Rules: c.Rules}
	if kind != Rules {
		c.model.Rules = []classify.Rule{{ID: 1, Name: "listed", From: c.Prefixes, Protocol: classify.AnyProtocol, Action: classify.Drop}}
	}
	var err error
	c.want, err = c.desire()
	return c, err
}

// special are addresses that a kernel does not forward from whatever its rules say, or that forwarded flows use here.
func special(a netip.Addr) bool {
	return a.IsLoopback() || lane.Inside.Contains(a) || netip.MustParsePrefix("198.18.0.0/15").Contains(a) || a.As4()[0] == 0
}

// keep returns n of the list, without special ones.
func keep(list []netip.Prefix, n int) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		if len(out) < n && !special(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// Size is the number of prefixes or rules.
func (c *Content) Size() int { return max(len(c.Prefixes), len(c.Rules)) }

// Keys says which flows are sent.
type Keys string

// The keys. Fixed is one flow, which the caches soon know by heart; random are as many as there are prefixes or more.
// Hits are decided by a list or a rule; what misses all of them meets the default.
const (
	FixedHit   Keys = "fixed hit"
	RandomHit  Keys = "random hit"
	FixedMiss  Keys = "fixed miss"
	RandomMiss Keys = "random miss"
)

// AllKeys are all of them, in the order of the report.
var AllKeys = []Keys{FixedHit, RandomHit, FixedMiss, RandomMiss}

// flows returns n flows (one, if keys are fixed) with the wanted fate. A fixed hit is one on the last rule that some flow
// hits: who walks a list walks all of it.
func (c *Content) flows(keys Keys, fate classify.Action, n int) ([]lane.Flow, error) {
	rng := rand.New(rand.NewPCG(5, 5))
	hit := keys == FixedHit || keys == RandomHit
	if keys == FixedHit || keys == FixedMiss {
		n = 1
	}
	var out []lane.Flow
	for tries := 0; len(out) < n; tries++ {
		if tries > 200*n+10_000 {
			return nil, fmt.Errorf("found only %d of %d flows (%s, %s)", len(out), n, keys, text(fate))
		}
		at := rng.IntN(c.Size())
		if keys == FixedHit {
			at = max(0, c.Size()-1-tries%c.Size())
		}
		f := c.candidate(rng, at, hit)
		// Eval is as fast as Judge is slow; tests hold the flows against that.
		d := c.want.XDP.Generation.Tables.Eval(int(abi.PolicyIngress), packetOf(f))
		if d.Action == fate && (d.Rule != 0) == hit && (c.Kind == Rules || !special(f.Src)) {
			out = append(out, f)
		}
	}
	return out, nil
}

// candidate is a flow from the prefix or rule at an index, or from anywhere.
func (c *Content) candidate(rng *rand.Rand, at int, hit bool) lane.Flow {
	f := lane.Flow{Src: classifytest.Addr4(rng), Dst: netip.MustParseAddr("10.0.0.9"), SrcPort: 1024 + uint16(rng.IntN(60000)), DstPort: 443, Protocol: 17}
	if c.Kind != Rules {
		if hit {
			f.Src = within(rng, c.Prefixes[at])
		}
		return f
	}
	f.Src, f.Dst = within(rng, lane.Inside), within(rng, lane.Inside)
	f.DstPort = uint16(rng.IntN(65536))
	f.Protocol = []uint8{6, 6, 6, 17}[rng.IntN(4)]
	if !hit {
		return f
	}
	r := c.Rules[at]
	if r.From != nil {
		f.Src = within(rng, r.From[0])
	}
	if r.To != nil {
		f.Dst = within(rng, r.To[0])
	}
	if r.Ports != nil {
		f.DstPort = r.Ports[0].First + uint16(rng.IntN(int(r.Ports[0].Last-r.Ports[0].First)+1))
	}
	if r.Protocol != classify.AnyProtocol {
		f.Protocol = uint8(r.Protocol)
	}
	return f
}

// within returns a random address of a prefix.
func within(rng *rand.Rand, p netip.Prefix) netip.Addr {
	raw, random := p.Addr().As4(), rng.Uint32()
	for bit := p.Bits(); bit < 32; bit++ {
		mask := byte(0x80) >> (bit % 8)
		raw[bit/8] = raw[bit/8]&^mask | byte(random>>(24-bit/8*8))&mask
	}
	return netip.AddrFrom4(raw)
}

func packetOf(f lane.Flow) classify.Packet {
	return classify.Packet{Src: f.Src, Dst: f.Dst, Protocol: f.Protocol, SrcPort: f.SrcPort, DstPort: f.DstPort, HasPorts: true, TTL: 64}
}

func text(a classify.Action) string {
	if a == classify.Drop {
		return "drop"
	}
	return "accept"
}

// YAML is the content as the file of a box that stands in a site, and its set file.
func (c *Content) YAML() (file, set []byte) {
	var b strings.Builder
	fmt.Fprintf(&b, `interfaces:
  - {name: %s, role: uplink, addresses: [%s], xdp: {mode: native}}
  - {name: %s, role: downstream, addresses: [%s]}
`, lane.Uplink, lane.UplinkAddress, lane.Downlink, lane.DownlinkAddress)
	if c.Kind != Rules {
		b.WriteString("sets: [{name: listed, files: [listed.netset]}]\npolicy:\n  ingress:\n    default: accept\n    rules: [{name: listed, from: [listed], action: drop}]\n")
		var s strings.Builder
		for _, p := range c.Prefixes {
			fmt.Fprintln(&s, p)
		}
		return []byte(b.String()), []byte(s.String())
	}
	b.WriteString("policy:\n  ingress:\n    default: accept\n    rules:\n")
	for _, r := range c.Rules {
		fmt.Fprintf(&b, "      - {name: %s", r.Name)
		for _, side := range []struct {
			key  string
			list []netip.Prefix
		}{{"from", r.From}, {"to", r.To}} {
			if side.list != nil {
				fmt.Fprintf(&b, ", %s: [%s]", side.key, side.list[0])
			}
		}
		if r.Protocol != classify.AnyProtocol {
			fmt.Fprintf(&b, ", protocol: %s", map[int]string{6: "tcp", 17: "udp"}[r.Protocol])
		}
		if r.Ports != nil {
			fmt.Fprintf(&b, ", ports: [%s]", portText(r.Ports[0], "-"))
		}
		fmt.Fprintf(&b, ", action: %s}\n", text(r.Action))
	}
	return []byte(b.String()), nil
}

func portText(r classify.PortRange, dash string) string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d%s%d", r.First, dash, r.Last)
}
