package compile

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func prefixList(texts ...string) []netip.Prefix {
	out := []netip.Prefix{}
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

const watchedSite = uplink + `
sets:
  - {name: feed, files: [/f], watch: true}
  - {name: both, prefixes: [203.0.113.0/24, 192.0.2.0/24], files: [/f, /g], watch: true}
policy: {ingress: {rules: [
  {name: a, from: [feed], action: drop}, {name: b, from: [both], action: drop}, {name: c, from: [feed, 203.0.113.9], action: drop}]}}`

func TestAWatchedSetIsWhatItsFilesHold(t *testing.T) {
	f := prefixList("192.0.2.0/24", "198.51.100.7/32")
	rt := Runtime{Watched: map[string][]netip.Prefix{"/f": f, "/g": prefixList("2001:db8::/32")}}
	p := compile(t, parse(t, watchedSite), rt, eth0).XDP.Generation.Ingress
	for name, want := range map[string][]netip.Prefix{
		"a": f,
		"b": prefixList("192.0.2.0/24", "198.51.100.7/32", "203.0.113.0/24", "2001:db8::/32"),
		"c": prefixList("192.0.2.0/24", "198.51.100.7/32", "203.0.113.9/32"),
	} {
		if diff := cmp.Diff(want, rule(t, p, name).From, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("rule %s (-want +got):\n%s", name, diff)
		}
	}
	if &rule(t, p, "a").From[0] != &f[0] {
		t.Error("a list that is a whole set was copied")
	}
	// A file that nobody could read is no address, not every address.
	empty := compile(t, parse(t, watchedSite), Runtime{}, eth0).XDP.Generation.Ingress
	if from := rule(t, empty, "a").From; from == nil || len(from) != 0 {
		t.Errorf("without contents the rule is from %v", from)
	}
}

func TestSetsThatDoNotWhatTheySeemToAreWarnedOf(t *testing.T) {
	d := compile(t, parse(t, uplink+`
sets:
  - {name: unused, prefixes: [0.0.0.0/0]}
  - {name: none, prefixes: []}
  - {name: world, prefixes: [192.0.2.0/24, 0.0.0.0/0, "::/0"]}
  - {name: feed, files: [/f], watch: true}
  - {name: fine, prefixes: [198.51.100.0/24]}
  - {name: dry, files: [/g], watch: true}
management: {accept: [{name: m, protocol: tcp, ports: [22], from: [feed]}]}
policy: {ingress: {rules: [{name: a, from: [none, world], action: drop}]}, egress: {rules: [{name: b, not_to: [feed, fine, dry], action: accept}]}}
`), Runtime{Watched: map[string][]netip.Prefix{"/f": prefixList("::/0")}}, eth0)
	want := []string{
		"sets[0]: set unused is used by no rule",
		"sets[2]: set world holds 0.0.0.0/0: every address of that family is in it",
		"sets[2]: set world holds ::/0: every address of that family is in it",
		"sets[3]: set feed is watched, and management: lets in who is in it: an empty feed locks everybody out",
		"sets[3]: set feed holds ::/0: every address of that family is in it",
		"sets[5]: set dry is empty: it matches nothing",
	}
	for i, w := range d.Warnings {
		_, d.Warnings[i], _ = strings.Cut(w, ": ")
	}
	if diff := cmp.Diff(want, d.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}
