package compile

import (
	"net/netip"
	"strings"
	"testing"

	"sluice/bgp"
)

// announcing is a file with two workloads, of which w is here, three neighbors, the last in our own AS, and entries of advertise.
func announcing(entries ...string) string {
	return uplink + `
workloads:
  - {name: w, interface: w, addresses: [203.0.113.7]}
  - {name: away, interface: away, addresses: [203.0.113.8]}
bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors:
    - {name: a, address: 198.18.0.1, asn: 65000}
    - {name: b, address: 198.18.0.5, asn: 65001}
    - {name: i, address: 198.18.0.9, asn: 65010}
  advertise:
    - ` + strings.Join(entries, "\n    - ") + "\n"
}

func paths(t *testing.T, rt Runtime, yaml string) []string {
	t.Helper()
	var p printer
	p.bgp(compile(t, parse(t, yaml), rt, facts("eth0", "w")).BGP)
	lines := []string{}
	for line := range strings.Lines(p.out.String()) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "path "); ok {
			lines = append(lines, rest)
		}
	}
	return lines
}

func TestWhoHearsWhatAndHow(t *testing.T) {
	probed := netip.MustParseAddr("198.18.0.77")
	for _, c := range []struct {
		name    string
		entries []string
		rt      Runtime
		want    []string
	}{
		{"all hear the same", []string{"{prefixes: [203.0.113.0/24], med: 0, large_communities: ['2:1:1', '1:1:1']}"}, Runtime{},
			[]string{"203.0.113.0/24 large 1:1:1 2:1:1 med 0"}},
		{"each its own way", []string{"{prefixes: [203.0.113.0/24], to: [b, i], communities: [no-export]}", "{prefixes: [203.0.113.0/24], to: [a], prepend: 2}"}, Runtime{},
			[]string{"203.0.113.0/24 to 198.18.0.1 prepend 2", "203.0.113.0/24 to 198.18.0.5 198.18.0.9 communities 4294967041"}},
		{"one that says more to one", []string{"{workloads: true, med: 5}", "{workloads: true, to: [a], med: 7, communities: ['0:1']}"}, Runtime{},
			[]string{"203.0.113.7/32 to 198.18.0.1 communities 1 med 5", "203.0.113.7/32 to 198.18.0.5 198.18.0.9 med 5"}},
		{"a next hop is of one family", []string{"{prefixes: [203.0.113.0/24, '2001:db8:9::/48'], next_hop: '2001:db8::9'}"}, Runtime{},
			[]string{"203.0.113.0/24", "2001:db8:9::/48 next hop 2001:db8::9"}},
		{"an aggregate stands while there is something in it", []string{"{aggregate: 203.0.113.0/24, to: [a], summary_only: true}", "{workloads: true}", "{aggregate: 192.0.2.0/24}", "{aggregate: 203.0.112.0/22, to: [b]}"}, Runtime{},
			[]string{"203.0.112.0/22 to 198.18.0.5", "203.0.113.0/24 to 198.18.0.1", "203.0.113.7/32 to 198.18.0.5 198.18.0.9"}},
		{"a workload that is here", []string{"{prefixes: [192.0.2.0/24], when: {workloads: [away, w]}}", "{prefixes: [198.51.100.0/24], when: {workloads: [away]}}"}, Runtime{},
			[]string{"192.0.2.0/24"}},
		{"nobody has looked", []string{"{prefixes: [192.0.2.0/24], when: {reach: [198.18.0.77]}}"}, Runtime{}, nil},
		{"no answer, so the entry behind it counts", []string{"{prefixes: [192.0.2.0/24], when: {reach: [198.18.0.77]}}", "{prefixes: [192.0.2.0/24], med: 100}"},
			Runtime{Reached: map[netip.Addr]bool{}}, []string{"192.0.2.0/24 med 100"}},
		{"an answer", []string{"{prefixes: [192.0.2.0/24], med: 1, when: {reach: [198.18.0.78, 198.18.0.77], workloads: [w]}}", "{prefixes: [192.0.2.0/24], med: 100}"},
			Runtime{Reached: map[netip.Addr]bool{probed: true}}, []string{"192.0.2.0/24 med 1"}},
		{"the last choice", []string{"{workloads: true, communities: ['0:1'], local_preference: 300}"}, Runtime{Drain: DrainGraceful},
			[]string{"203.0.113.7/32 communities 1 4294901760 preference 1"}},
		{"withdrawn", []string{"{workloads: true}", "{prefixes: [192.0.2.0/24]}"}, Runtime{Drain: DrainWithdrawn}, nil},
	} {
		t.Run(c.name, func(t *testing.T) { same(t, paths(t, c.rt, announcing(c.entries...)), c.want...) })
	}
}

func TestThePrefixesOfTunnelsAreAnnouncedWhileTheirPeerIsNotDown(t *testing.T) {
	const learn = "\nbgp: {asn: 65010, router_id: 198.18.0.2, neighbors: [{name: a, address: 198.18.0.1, asn: 65000}], advertise: [{tunnels: true}]}"
	yaml := uplink + tunnel("t") + learn
	peer := parse(t, yaml).Tunnels[0].Peers[0]
	same(t, paths(t, Runtime{}, yaml), "10.20.0.0/16")
	same(t, paths(t, Runtime{Tunnels: map[string]TunnelNow{"t": {Peers: map[string]PeerNow{peer.Name: {Down: true}}}}}, yaml))
}

// TestWhatIsWithdrawnForAWhileChangesNoSource: flows would break by it.
func TestWhatIsWithdrawnForAWhileChangesNoSource(t *testing.T) {
	yaml := strings.Replace(announcing("{prefixes: [10.0.1.0/24], when: {reach: [198.18.0.77]}}"), "addresses: [203.0.113.7]", "snat: auto, addresses: [10.0.1.7]", 1)
	for name, rt := range map[string]Runtime{"no answer": {Reached: map[netip.Addr]bool{}}, "a drain": {Drain: DrainWithdrawn}} {
		d := compile(t, parse(t, yaml), rt, facts("eth0", "w"))
		if got := d.TC.Generation.Announced; list(got) != "10.0.1.0/24" || len(d.BGP.Paths) != 0 {
			t.Errorf("%s: announced %v, paths %v", name, got, d.BGP.Paths)
		}
	}
}

func TestWhatIsNotAnnouncedIsToldWithTheReason(t *testing.T) {
	yaml := announcing("{prefixes: [192.0.2.0/24], when: {reach: [198.18.0.77]}}", "{workloads: true, when: {workloads: [away]}}")
	d := compile(t, parse(t, yaml), Runtime{Reached: map[netip.Addr]bool{}}, facts("eth0", "w"))
	text := strings.Join(d.Warnings, "\n")
	for _, want := range []string{"bgp.advertise[0] is not announced: no answer from 198.18.0.77", "bgp.advertise[1] is not announced: no workload is here of away"} {
		if !strings.Contains(text, want) {
			t.Errorf("warnings %q lack %q", text, want)
		}
	}
}

func TestFiltersNameNeighborsByTheirAddresses(t *testing.T) {
	yaml := announcing("{workloads: true}") + "  learn: {table: 100, reject: [{as_path: _64666_}], accept: [{from: [i, a], communities: [blackhole], set: {local_preference: 7}}]}\n"
	got := compile(t, parse(t, yaml), Runtime{}, facts("eth0", "w")).BGP.Learn
	if got.Table != 100 || len(got.Reject) != 1 || got.Reject[0].ASPath != "_64666_" || got.Reject[0].From != nil || len(got.Accept) != 1 {
		t.Fatalf("learn %+v", got)
	}
	if f := got.Accept[0]; list(f.From) != "198.18.0.1 198.18.0.9" || f.LocalPreference != 7 || len(f.Communities) != 1 || f.Communities[0] != 0xffff029a || f.PrefixMatch != (bgp.PrefixMatch{}) {
		t.Errorf("accept %+v", f)
	}
}
