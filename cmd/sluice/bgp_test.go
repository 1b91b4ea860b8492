package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
)

func TestANeighborIsShownWithWhatWentWrong(t *testing.T) {
	b := daemonOf(t, &box{})
	sluice(t, "show", "bgp", "neighbor", "tor-a").is(t, done(`neighbor      tor-a, 198.18.0.1, AS 65000, eBGP, passive
state         established
up            1h2m5s
session       router id 198.18.0.1, hold 9s, keepalive 3s
flaps         2
last error    received Cease: Administrative Shutdown ("works")
notification  received Cease: Administrative Shutdown ("works") (6/2) at 2026-03-01 10:57:55
max prefixes  100 of each family
ipv4-unicast  10 received, 9 accepted, 3 advertised
              1 route of ipv4-unicast refused: the first AS in the path is not 65000 (enforce_first_as)
MESSAGES  OPEN  UPDATE  KEEPALIVE  NOTIFICATION  ROUTE-REFRESH
sent      3     4       1241       1             0
received  3     12      1240       1             1
`))
	sluice(t, "show", "bgp", "neighbor", "tor-a", "received", "--limit", "2").is(t, done(`PREFIX           NEXT HOP    AS PATH      LOCAL PREF  MED  COMMUNITIES    STATE
192.0.2.0/24     198.18.0.1  65000 65001  100         7    65000:100 1:0  -
198.51.100.0/24  198.18.0.1  -            -           -    -              stale, refused: no AS in the path, want 65000 (enforce_first_as)
and 1 more: --limit shows them
`))
	want := []string{"neighbor {Name:tor-a Table: Limit:1000}", "neighbor {Name:tor-a Table:received Limit:2}"}
	if d := cmp.Diff(want, b.asked); d != "" {
		t.Errorf("the daemon was asked\n%s", d)
	}
	if got := sluice(t, "show", "bgp", "neighbor", "tor-a", "sent"); got.code != exitUsage || !strings.Contains(got.err, "[advertised received accepted]") {
		t.Errorf("a table that is none: %+v", got)
	}
}

func TestASessionThatIsDownIsShownWithItsLastAttempt(t *testing.T) {
	out, at := &strings.Builder{}, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := &cli{out: out, now: func() time.Time { return at }}
	n := api.Neighbor{Name: "tor-a", Address: netip.MustParseAddr("198.18.0.1"), ASN: 65000, State: "active", LastError: "received Cease",
		LastDial: &api.Dial{Time: at.Add(-3 * time.Second), Error: "198.18.0.1 port 179 refuses the connection"}}
	if err := printBGP(c, []api.Neighbor{n}); err != nil {
		t.Fatal(err)
	}
	if err := printNeighbor(c, n); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\ntor-a: received Cease\ntor-a: 198.18.0.1 port 179 refuses the connection (tried 3s ago)\n",
		"\nlast error    received Cease\nlast try      3s ago: 198.18.0.1 port 179 refuses the connection\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s\nwants %s", out, want)
		}
	}
}

func TestRoutesAreAskedForByPrefixAndCounted(t *testing.T) {
	for args, want := range map[string]string{
		"show routes":                "show routes",
		"show routes 192.0.2.7":      "routes {About:192.0.2.7 Limit:1000 Count:false}",
		"show routes fd00::/8":       "routes {About:fd00::/8 Limit:1000 Count:false}",
		"show routes --limit 100000": "routes {About: Limit:100000 Count:false}",
		"show routes --count":        "routes {About: Limit:1000 Count:true}",
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
	sluice(t, "show", "routes", "--count").is(t, done("4711 routes, 1 absent, 1 stale\n"))
	if got := sluice(t, "show", "routes", "tor-a"); got.code != exitUsage || !strings.Contains(got.err, `"tor-a" is no address and no prefix`) {
		t.Errorf("a target that is none: %+v", got)
	}
}

func TestASessionIsClearedHardOrSoft(t *testing.T) {
	b := daemonOf(t, &box{})
	sluice(t, "clear", "bgp", "tor-a").is(t, done("the session with tor-a was reset\n"))
	sluice(t, "clear", "bgp", "tor-a", "soft").is(t, done("routes with tor-a are judged and sent again\n"))
	if d := cmp.Diff([]string{"clear bgp {Neighbor:tor-a Soft:false}", "clear bgp {Neighbor:tor-a Soft:true}"}, b.asked); d != "" {
		t.Errorf("the daemon was asked\n%s", d)
	}
	if got := sluice(t, "clear", "bgp", "tor-a", "gently"); got.code != exitUsage {
		t.Errorf("a word that is not soft: %+v", got)
	}
}
