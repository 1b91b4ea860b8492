package compile

import (
	"slices"
	"strings"
	"testing"

	"sluice/control/config"
	"sluice/control/host"
)

const threeUplinks = `
interfaces:
  - {name: eth0, role: uplink, addresses: [198.18.0.2/30]}
  - {name: bond0, role: uplink}
  - {name: eth9, role: uplink, xdp: {mode: none}}
  - {name: lan, role: downstream}
policy: {ingress: {rules: [RULES]}}
`

func taggedSite(t *testing.T, rules string) *config.Config {
	t.Helper()
	return parse(t, strings.Replace(threeUplinks, "RULES", rules, 1))
}

// taggedFacts are a NIC, a bond of two and an uplink without XDP.
func taggedFacts(change func(map[string][]host.Receiver)) Facts {
	f := facts("eth0", "bond0", "eth2", "eth3", "eth9", "lan")
	f.Host.Receivers = map[string][]host.Receiver{
		"eth0": {{Link: "eth0"}}, "bond0": {{Link: "eth2"}, {Link: "eth3"}},
	}
	if change != nil {
		change(f.Host.Receivers)
	}
	return f
}

func TestNICsLeaveTagsWhereARuleAsksForThem(t *testing.T) {
	for _, c := range []struct{ name, rules, looks, want string }{
		{"no rule asks for a tag", "{name: r, action: drop}", "", ""},
		{"one on an uplink does", "{name: r, vlan: [100], interfaces: [eth0], action: drop}", "eth0", "eth0"},
		{"of a bond its members", "{name: r, vlan: [100], interfaces: [bond0], action: drop}", "bond0", "eth2 eth3"},
		{"one for untagged packets meets all uplinks", "{name: r, vlan: [untagged], action: drop}", "eth0 bond0", "eth0 eth2 eth3"},
		{"a shadow rule counts by tags as well", "{name: r, vlan: [100], interfaces: [eth0], action: drop, mode: shadow}", "eth0", "eth0"},
		{"another action", "{name: r, vlan: [1-7], interfaces: [bond0, eth0], action: accept}", "eth0 bond0", "eth0 eth2 eth3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := taggedSite(t, c.rules)
			if got := strings.Join(LooksAtTags(cfg), " "); got != c.looks {
				t.Errorf("it has to look at %q, want %q", got, c.looks)
			}
			var got []string
			for _, tags := range compile(t, cfg, Runtime{}, taggedFacts(nil)).Host.Tags {
				if got = append(got, tags.Link); !tags.InFrame {
					t.Errorf("%s: tags are not wanted in the frame", tags.Link)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("offloads are switched off on %q, want %q", got, c.want)
			}
		})
	}
}

func TestARuleThatCannotSeeTagsIsRefused(t *testing.T) {
	fixed := func(r map[string][]host.Receiver) { r["bond0"][1].HidesTags = "fixed on" }
	for _, c := range []struct {
		name, rules string
		change      func(map[string][]host.Receiver)
		want        string // of the error; "": there is none
	}{
		{"on a member of a bond", "{name: a, action: drop}, {name: r, vlan: [100], interfaces: [bond0], action: drop}", fixed,
			"policy.ingress.rules[1].vlan: rule r cannot see VLAN tags on eth3: fixed on"},
		{"untagged: it would match all there", "{name: r, vlan: [untagged], action: accept}", fixed,
			"policy.ingress.rules[0].vlan: rule r cannot see VLAN tags on eth3"},
		{"limited to another uplink it may stay", "{name: r, vlan: [100], interfaces: [eth0], action: drop}", fixed, ""},
		{"an uplink without XDP sees no tag", "{name: r, vlan: [100], action: drop}", nil,
			"rule r cannot see VLAN tags on eth9: its xdp.mode is none"},
		{"but untagged packets it judges right", "{name: r, vlan: [untagged], action: drop}", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Compile(taggedSite(t, c.rules), Runtime{}, taggedFacts(c.change))
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "interfaces:")):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestAShadowRuleThatCannotSeeTagsIsAWarning(t *testing.T) {
	d := compile(t, taggedSite(t, "{name: trial, vlan: [100], interfaces: [eth0, eth9], action: drop, mode: shadow}"), Runtime{},
		taggedFacts(func(r map[string][]host.Receiver) { r["eth0"][0].HidesTags = "fixed on" }))
	for _, want := range []string{"rule trial counts wrong, for it cannot see VLAN tags on eth0: fixed on",
		"rule trial counts wrong, for it cannot see VLAN tags on eth9: its xdp.mode is none, and tcx judges untagged packets only"} {
		if !slices.Contains(d.Warnings, want) {
			t.Errorf("no %q among %q", want, d.Warnings)
		}
	}
	if len(d.Host.Tags) > 0 {
		t.Errorf("it would switch %v", d.Host.Tags)
	}
}

func TestAVethIsToldOfItsOtherEnd(t *testing.T) {
	d := compile(t, taggedSite(t, "{name: r, vlan: [100], interfaces: [eth0], action: drop}"), Runtime{},
		taggedFacts(func(r map[string][]host.Receiver) { r["eth0"][0].Kind = "veth" }))
	if !slices.ContainsFunc(d.Warnings, func(w string) bool { return strings.Contains(w, "interface eth0 is a veth") }) {
		t.Errorf("warnings are %q", d.Warnings)
	}
	if !slices.Equal(d.Host.Tags, []host.Tags{{Link: "eth0", InFrame: true}}) {
		t.Errorf("tags are %v", d.Host.Tags)
	}
}
