package main

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
)

func TestBanAndUnban(t *testing.T) {
	until := noon.Add(10 * time.Minute)
	bans := []api.Ban{{Target: "192.0.2.7", Until: &until}, {Target: "2001:db8::/32"}}
	for _, c := range []struct{ args, asked, out string }{
		{"ban 192.0.2.7 2001:db8::/32 --for 10m --why attack", `ban ["192.0.2.7" "2001:db8::/32"] for 600s why "attack" by "ann" force=false`,
			"192.0.2.7 is banned until 2026-03-01 12:10:00\n2001:db8::/32 is banned until it is lifted\n"},
		{"ban 192.0.2.7 --for 1d12h --force", `ban ["192.0.2.7"] for 129600s why "" by "ann" force=true`, "*"},
		{"ban 192.0.2.7 --for 365d", `ban ["192.0.2.7"] for 3.1536e+07s why "" by "ann" force=false`, "*"},
		{"ban 192.0.2.7", `ban ["192.0.2.7"] for 0s why "" by "ann" force=false`, "*"},
		{"unban 192.0.2.7 2001:db8::/32", `unban ["192.0.2.7" "2001:db8::/32"] all=false`,
			"192.0.2.7 is not banned any more\n2001:db8::/32 is not banned any more\n"},
		{"unban --all", `unban [] all=true`, "*"},
	} {
		b := daemonOf(t, &box{bans: bans})
		got := sluice(t, strings.Fields(c.args)...)
		if got.code != exitDone || got.err != "" || c.out != "*" && got.out != c.out {
			t.Errorf("%s: %+v", c.args, got)
		}
		if len(b.asked) != 1 || b.asked[0] != c.asked {
			t.Errorf("%s: the daemon was asked %q, want %q", c.args, b.asked, c.asked)
		}
		var printed []api.Ban
		if js := sluice(t, append(strings.Fields(c.args), "-o", "json")...); json.Unmarshal([]byte(js.out), &printed) != nil || len(printed) != 2 {
			t.Errorf("%s -o json: %+v", c.args, js)
		}
	}
	for _, args := range []string{"ban", "unban", "unban 192.0.2.7 --all", "ban 192.0.2.7 --for 10", "ban 192.0.2.7 --for 0s", "ban 192.0.2.7 --for -1m",
		"ban 192.0.2.7 --for d", "ban 192.0.2.7 --for 1dd", "ban 192.0.2.7 --for 1d-1h", "ban 192.0.2.7 --for forever"} {
		if got := sluice(t, strings.Fields(args)...); got.code != exitUsage || got.err == "" {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestBanningAgainSaysWhatHeldBefore(t *testing.T) {
	now, later := noon.Add(10*time.Minute), noon.Add(time.Hour)
	for _, c := range []struct {
		until  *time.Time
		before api.FormerBan
		want   string
	}{
		{&now, api.FormerBan{By: "ann", Why: "ssh"}, "until 2026-03-01 12:10:00, SOONER than before: until it is lifted, by ann: ssh"},
		{&now, api.FormerBan{Until: &later}, "until 2026-03-01 12:10:00, SOONER than before: until 2026-03-01 13:00:00"},
		{&later, api.FormerBan{Until: &now, By: "ann"}, "until 2026-03-01 13:00:00; before: until 2026-03-01 12:10:00, by ann"},
		{nil, api.FormerBan{Until: &now}, "until it is lifted; before: until 2026-03-01 12:10:00"},
		{&now, api.FormerBan{Until: &now, Why: "x"}, "until 2026-03-01 12:10:00; before: until 2026-03-01 12:10:00: x"},
	} {
		daemonOf(t, &box{bans: []api.Ban{{Target: "192.0.2.7", Until: c.until, Before: &c.before}}})
		sluice(t, "ban", "192.0.2.7").is(t, done("192.0.2.7 is banned "+c.want+"\n"))
	}
}

func TestBansAreAskedForByAddressAuthorOrReasonAndCounted(t *testing.T) {
	for args, want := range map[string]string{
		"show bans":                       "show bans",
		"show bans ::ffff:192.0.2.8":      "bans {About:192.0.2.8/32 By: Why: Limit:1000 Count:false}",
		"show bans 192.0.0.0/16 --by ann": "bans {About:192.0.0.0/16 By:ann Why: Limit:1000 Count:false}",
		"show bans --why ssh --limit 5":   "bans {About: By: Why:ssh Limit:5 Count:false}",
		"show bans --count":               "bans {About: By: Why: Limit:1000 Count:true}",
	} {
		b := daemonOf(t, &box{})
		if got := sluice(t, strings.Fields(args)...); got.code != exitDone || got.err != "" {
			t.Errorf("%s: %+v", args, got)
		}
		if diff := cmp.Diff([]string{want}, b.asked); diff != "" {
			t.Errorf("%s: the daemon was asked\n%s", args, diff)
		}
	}
	daemonOf(t, &box{})
	sluice(t, "show", "bans", "--count").is(t, done("2 bans\n"))
	if got := sluice(t, "show", "bans", "192.0.2.7/99"); got.code != exitUsage {
		t.Errorf("a target that is none: %+v", got)
	}
}

func TestFiltersAreAskedForByNeighborAndCounted(t *testing.T) {
	b := daemonOf(t, &box{})
	got := sluice(t, "show", "flowspec", "tor-a", "--limit", "1")
	if !strings.HasSuffix(got.out, "these are the first 1 of 4 filters, 1 refused, 1 stale: --limit shows more\n") {
		t.Errorf("%+v", got)
	}
	sluice(t, "show", "flowspec", "--count").is(t, done("4 filters, 1 refused, 1 stale\n"))
	want := []string{"filters {Neighbor:tor-a Limit:1 Count:false}", "filters {Neighbor: Limit:1000 Count:true}"}
	if diff := cmp.Diff(want, b.asked); diff != "" {
		t.Errorf("the daemon was asked\n%s", diff)
	}
}

func TestExplainNamesTheBan(t *testing.T) {
	until := noon.Add(time.Hour)
	daemonOf(t, &box{explain: api.Explanation{Packet: "p", Hooks: []api.HookAnswer{{Hook: "xdp", Interface: "eth0", Verdict: "drop", Reason: "banned",
		Text: "t", Ban: &api.Ban{Target: "192.0.2.0/24", Until: &until, By: "ann", Why: "attack"}}}}})
	sluice(t, "explain", "--in", "eth0", "--packet", "p").is(t,
		done("p\nxdp on eth0: drop, banned: t\n  by the ban of 192.0.2.0/24 until 2026-03-01 13:00:00, by ann: attack\n"))
}

func TestExplainNamesFiltersOfNeighborsAndWhatTheyDo(t *testing.T) {
	from := func(rule, actions, socket string) api.Filter {
		return api.Filter{Rule: rule, Neighbor: "tor", Address: netip.MustParseAddr("198.18.0.1"), Actions: actions, Socket: socket}
	}
	samples, scrubs, drops := from("flow4 { a }", "sample, go on", ""), from("flow4 { b }", "redirect 65000:100", "scrub"), from("flow4 { c }", "discard", "")
	for _, c := range []struct {
		name, want string
		hook       api.HookAnswer
	}{
		{"one drops it", "  filter flow4 { a } of neighbor tor: sample, go on\n  by flow4 { c } of neighbor tor: discard\n",
			api.HookAnswer{Filter: &drops, Filters: []api.Filter{samples, drops}}},
		{"it is handed over", "  by flow4 { b } of neighbor tor: redirect 65000:100, to socket scrub\n", api.HookAnswer{Filter: &scrubs, Filters: []api.Filter{scrubs}}},
		{"nobody takes it", "  filter flow4 { b } of neighbor tor: redirect 65000:100, to socket scrub, but no program takes it there: it goes on\n  and more filters of neighbors\n",
			api.HookAnswer{Filters: []api.Filter{scrubs}, MoreFilters: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.hook.Hook, c.hook.Interface, c.hook.Verdict, c.hook.Reason, c.hook.Text = "xdp", "eth0", "v", "r", "t"
			daemonOf(t, &box{explain: api.Explanation{Packet: "p", Hooks: []api.HookAnswer{c.hook}}})
			sluice(t, "explain", "--in", "eth0", "--packet", "p").is(t, done("p\nxdp on eth0: v, r: t\n"+c.want))
		})
	}
}

func TestMonitorPrintsALineForEachEvent(t *testing.T) {
	port, web, kind := uint16(1234), uint16(80), uint8(8)
	until := noon.Add(time.Minute)
	src, dst := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("203.0.113.9")
	packet := api.Packet{Hook: "xdp", Interface: "eth0", Rule: "ingress/bogons", Protocol: "tcp", Source: src,
		Destination: dst, SourcePort: &port, DestinationPort: &web, TCPFlags: "S", VLAN: 100, Length: 60}
	events := []api.Event{
		{Type: api.EventBegin},
		{Type: api.EventEngine, Engine: &api.Notice{Kind: "pending", Revision: 3, Text: "goes back to revision 2 in 2m0s"}},
		{Type: api.EventEngine, Engine: &api.Notice{Kind: "confirmed", Revision: 3}},
		{Type: api.EventEngine, Engine: &api.Notice{Kind: "down"}},
		{Type: api.EventBGP, BGP: &api.Session{Neighbor: "tor", Address: src, Kind: "up", Up: true}},
		{Type: api.EventBGP, BGP: &api.Session{Neighbor: "tor", Address: src, Kind: "down", Reason: "sent Hold Timer Expired"}},
		{Type: api.EventBGP, BGP: &api.Session{Neighbor: "tor", Address: src, Kind: "prefixes-warning", Up: true, Reason: "81 of at most 100 prefixes of ipv4-unicast"}},
		{Type: api.EventLink, Link: &api.Link{Name: "eth0", Exists: true, Up: true, Carrier: true, Addresses: true}},
		{Type: api.EventLink, Link: &api.Link{Name: "eth0", Exists: true, Up: true}},
		{Type: api.EventLink, Link: &api.Link{Name: "eth0"}},
		{Type: api.EventBan, Text: "banned", Ban: &api.Ban{Target: "192.0.2.7", Until: &until, By: "ann", Why: "attack"}},
		{Type: api.EventBan, Text: "banned", Ban: &api.Ban{Target: "192.0.2.7", Until: &until, Before: &api.FormerBan{By: "bob"}}},
		{Type: api.EventBan, Text: "expired", Ban: &api.Ban{Target: "192.0.2.7"}},
		{Type: api.EventDrop, Drop: &api.Drop{Reason: "rule-drop", Packet: packet}},
		{Type: api.EventLog, Log: &api.Logged{Verdict: "drop", Packet: packet}},
		{Type: api.EventDrop, Drop: &api.Drop{Reason: "banned", Ban: "192.0.2.0/24", Packet: api.Packet{Hook: "tcx-ingress", Interface: "fra1",
			Protocol: "icmp", Source: src, Destination: dst, ICMPType: &kind, Length: 98}}},
		{Type: api.EventDrop, Drop: &api.Drop{Reason: "ip4-truncated", Packet: api.Packet{Hook: "xdp", Interface: "eth0", Length: 20}}},
		{Type: api.EventSetFile, SetFile: &api.SetFile{File: "/f", Sets: []string{"feed"}, Prefixes: 7, Added: 2, Removed: 1}},
		{Type: api.EventSetFile, SetFile: &api.SetFile{File: "/f", Sets: []string{"feed"}, Prefixes: 7, Error: "/f:3:1: bad\n/f:4:1: bad"}},
		{Type: api.EventSetFile, SetFile: &api.SetFile{File: "/f", Sets: []string{"feed"}, Prefixes: 7}},
		{Type: api.EventTunnel, Tunnel: &api.TunnelEvent{Kind: "down", Tunnel: "fra1", Peer: "a", Text: "peer a is down: 3 probes of 10.200.0.0 in a row were lost"}},
		{Type: api.EventTunnel, Tunnel: &api.TunnelEvent{Kind: "charon-gone", Text: "charon does not answer at /s"}},
		{Type: api.EventUnseen, Count: 9000},
		{Type: api.EventUnseen, Count: 70, Text: api.UnseenFlows},
		{Type: api.EventFlow, Flow: &api.FlowEvent{Change: "new", Flow: api.Flow{Protocol: "tcp", Source: "10.0.1.10:40000",
			Destination: "203.0.113.9:443", TranslatedTo: "198.18.0.2:1024", Workload: "web-1", Rules: []string{"workload/web-1/egress/out"}}}},
		{Type: api.EventFlow, Flow: &api.FlowEvent{Change: "closed", Flow: api.Flow{Protocol: "udp", Source: "192.0.2.7:9", Destination: "198.18.0.2:53",
			AgeSeconds: 61.04, Packets: 2, Bytes: 2048, AnsweredPackets: 1, AnsweredBytes: 60}}},
		{Type: api.EventLost, Count: 12},
		{Type: api.EventNote, Text: "as it is"},
	}
	for i := range events {
		events[i].Time = noon
	}
	b := daemonOf(t, &box{events: events})
	got := sluice(t, "monitor", "--drops", "--flows")
	const end = "note   the daemon has ended: what happens until it is back is not shown\n"
	told := strings.LastIndex(strings.TrimSuffix(got.out, "\n"), "\n") + 1
	golden(t, "testdata/monitor.golden.txt", got.out[:told])
	if !strings.HasSuffix(got.out[told:], end) {
		t.Errorf("of the daemon's end: %q", got.out[told:])
	}
	if got.code != exitNo || !strings.Contains(got.err, "enough") {
		t.Errorf("what the next daemon said: %d %q", got.code, got.err)
	}
	if len(b.asked) != 1 || b.asked[0] != "monitor drops=true flows=true" {
		t.Errorf("the daemon was asked %q", b.asked)
	}
	js := sluice(t, "monitor", "-o", "json")
	lines := strings.Split(strings.TrimSpace(js.out), "\n")
	events = append(events, api.Event{Time: noon, Type: api.EventNote}) // of the daemon's end
	if len(lines) != len(events) {
		t.Fatalf("%d lines of JSON for %d events", len(lines), len(events))
	}
	for i, line := range lines {
		var e api.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Type != events[i].Type || !e.Time.Equal(noon) && i < len(events)-1 {
			t.Errorf("line %d: %s (%v)", i, line, err)
		}
	}
}
