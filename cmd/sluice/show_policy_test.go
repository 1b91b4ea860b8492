package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
)

func TestShowPolicyPicksPoliciesAndRules(t *testing.T) {
	daemonOf(t, &box{})
	for _, c := range []struct {
		args string
		want []string // policy/rule, in order
		text string   // of the output
	}{
		{"ingress", []string{"ingress/no-bogons", "ingress/trial", "ingress/dns-flood", "ingress/web", "ingress/dns-trial"}, "  5 rules, 1 never hit, 2 in shadow mode\n"},
		{"ingress --unused", []string{"ingress/web"}, "  5 rules, 1 never hit, 2 in shadow mode; 1 shown\n"},
		{"--unused", []string{"ingress/web"}, "failsafe, default continue\n  1 rule, 0 never hit; 0 shown\n"},
		{"ingress --top 2", []string{"ingress/no-bogons", "ingress/dns-flood"}, "limit (1200 dropped)"},
		{"egress", nil, "egress, default accept: 0 packets, 0 B, last never\n  no rules\n"},
	} {
		args := append([]string{"show", "policy"}, strings.Fields(c.args)...)
		text, js := sluice(t, args...), sluice(t, append(args, "-o", "json")...)
		if text.code != exitDone || !strings.Contains(text.out, c.text) {
			t.Errorf("%s: %+v", c.args, text)
		}
		var policies []api.Policy
		if err := json.Unmarshal([]byte(js.out), &policies); err != nil || js.code != exitDone {
			t.Fatalf("%s: %+v (%v)", c.args, js, err)
		}
		var got []string
		for _, p := range policies {
			for _, r := range p.Rules {
				got = append(got, p.Name+"/"+r.Name)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.args, diff)
		}
	}
	sluice(t, "show", "policy", "nobody").is(t, outcome{exitNo, "", "sluice: there is no policy \"nobody\": there are failsafe, ingress, egress\n"})
	if got := sluice(t, "show", "policy", "--top", "-1"); got.code != exitUsage {
		t.Errorf("%+v", got)
	}
}

func TestAnOldCounterHasNoTime(t *testing.T) {
	c := newCLI(nil, nil)
	c.now = sluiceNow
	at := noon.Add(-90e9)
	for want, h := range map[string]api.Hits{"never": {}, "unknown": {Packets: 1}, "1m30s ago": {Packets: 1, LastHit: &at}} {
		if got := c.lastHit(h); got != want {
			t.Errorf("%+v: %q, want %q", h, got, want)
		}
	}
}

func TestClearCounters(t *testing.T) {
	b := daemonOf(t, &box{})
	sluice(t, "clear", "counters").is(t, done("cleared 7 rules of 2 policies\n"))
	sluice(t, "clear", "counters", "ingress", "-o", "json").is(t, done("{\n  \"policies\": [\n    \"ingress\",\n    \"egress\"\n  ],\n  \"rules\": 7\n}\n"))
	if want := []string{`clear counters ""`, `clear counters "ingress"`}; !cmp.Equal(b.asked, want) {
		t.Errorf("the daemon was asked %q, want %q", b.asked, want)
	}
}

// TestExplainNamesTheNearestOfManyRules: all of them in JSON.
func TestExplainNamesTheNearestOfManyRules(t *testing.T) {
	var over []api.PassedOver
	for i := range 1000 {
		over = append(over, api.PassedOver{Rule: fmt.Sprintf("ingress/r%d", i), Line: i + 1, Why: "ttl is 1, not 2"})
	}
	daemonOf(t, &box{explain: api.Explanation{Packet: "icmp", Hooks: []api.HookAnswer{{Hook: "xdp", Interface: "eth0", Verdict: "drop", Policy: "ingress", PassedOver: over}}}})
	got := sluice(t, "explain", "--in", "eth0", "--packet", "icmp")
	lines := strings.Split(got.out, "\n")
	if len(lines) != 25 || lines[2] != "  passed over 980 rules before these: -o json names them" || lines[3] != "  passed over ingress/r980 (line 981): ttl is 1, not 2" ||
		lines[23] != "  by the default of ingress" {
		t.Errorf("%d lines:\n%s", len(lines), got.out)
	}
	var all api.Explanation
	js := sluice(t, "explain", "--in", "eth0", "--packet", "icmp", "-o", "json")
	if err := json.Unmarshal([]byte(js.out), &all); err != nil || len(all.Hooks[0].PassedOver) != 1000 {
		t.Errorf("%d passed over in JSON (%v)", len(all.Hooks[0].PassedOver), err)
	}
}
