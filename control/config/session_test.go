package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestWhatANeighborSaysItselfWinsOverItsGroup(t *testing.T) {
	c, err := parse(`
bgp:
  asn: 65010
  router_id: 198.18.0.2
  groups:
    - {name: tors, asn: 65000, port: 1179, families: [ipv4-unicast, ipv6-unicast], timers: {hold: 30s, connect_retry: 7s},
       max_prefixes: {limit: 100, action: warn}, passive: true, enforce_first_as: false, shutdown: {reason: works}, graceful_restart: {restart_time: 60s}}
    - {name: old, asn: 65000, timers: {hold: 30s}}
  neighbors:
    - {name: a, address: 198.18.0.1, group: tors}
    - {name: b, address: 198.18.0.3, group: tors, asn: 65001, families: [ipv4-unicast], timers: {hold: 12s, keepalive: 3s},
       max_prefixes: 7, passive: false, enforce_first_as: true, shutdown: false, graceful_restart: {}}
    - {name: c, address: 198.18.0.5, group: old, hold_time: 9s}
    - {name: d, address: 198.18.0.7, asn: 65010}
`)
	if err != nil {
		t.Fatal(err)
	}
	both := []Family{IPv4Unicast, IPv6Unicast}
	want := []Neighbor{
		{ASN: 65000, Port: 1179, Families: both, HoldTime: 30 * time.Second, ConnectRetry: 7 * time.Second, Passive: true,
			RestartTime: time.Minute, MaxPrefixes: PrefixLimit{Limit: 100, WarnAt: 80, Action: LimitWarn}, Shutdown: true, Reason: "works"},
		{ASN: 65001, Port: 1179, Families: both[:1], HoldTime: 12 * time.Second, Keepalive: 3 * time.Second, ConnectRetry: 7 * time.Second, FirstAS: true,
			RestartTime: time.Minute, MaxPrefixes: PrefixLimit{Limit: 7, WarnAt: 80, Action: LimitStop}},
		{ASN: 65000, Port: 179, Families: both[:1], HoldTime: 9 * time.Second, ConnectRetry: 2 * time.Second, FirstAS: true},
		{ASN: 65010, Port: 179, Families: both[:1], HoldTime: 90 * time.Second, ConnectRetry: 2 * time.Second},
	}
	if d := cmp.Diff(want, c.BGP.Neighbors, comparer, cmpopts.IgnoreFields(Neighbor{}, "Name", "Address", "Pos")); d != "" {
		t.Errorf("neighbors (-want +got)\n%s", d)
	}
}
