package host

import (
	"net/netip"
	"slices"
	"testing"
)

// TestReachIsWhatTheBoxIsManagedBy: kept addresses and devices, and the links that they need up, without what only a revision knows.
func TestReachIsWhatTheBoxIsManagedBy(t *testing.T) {
	mine := netip.MustParsePrefix("10.0.9.2/24")
	s := State{
		Devices:   []Device{{Name: "bond0", Members: []string{"eth3", "eth4"}, Keep: true}, {Name: "eth0.7", Parent: "eth0", VLAN: 7}},
		Links:     []Link{{Name: "bond0", Up: true, Group: 18}, {Name: "eth0", Up: true, Group: 18}, {Name: "eth2", Up: true, MTU: 1400, Group: 18}, {Name: "eth3", Up: true}, {Name: "eth5", Up: true}},
		Addresses: []Address{{Link: "bond0", Prefix: mine, Keep: true}, {Link: "eth0", Prefix: netip.MustParsePrefix("198.18.0.2/30")}, {Link: "eth2", Prefix: mine, Keep: true}},
		Routes:    []Route{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Keep: true}, {Prefix: netip.MustParsePrefix("10.1.0.0/16")}},
		Rules:     []Rule{{Priority: 18800}},
		Sysctls:   []Sysctl{{"net.ipv4.ip_forward", "1"}},
	}
	r := s.Reach()
	if want := []Link{{Name: "bond0", Up: true}, {Name: "eth2", Up: true, MTU: 1400}, {Name: "eth3", Up: true}}; !slices.Equal(r.Links, want) {
		t.Errorf("links %+v", r.Links)
	}
	if len(r.Devices) != 1 || len(r.Addresses) != 2 || len(r.Routes) != 1 || len(r.Rules)+len(r.Sysctls) != 0 {
		t.Errorf("%+v", r)
	}
	if s.Links[0].Group != 18 {
		t.Error("the state itself was changed")
	}
}
