package host

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestOnLinkIsWhatNeedsNoRouter(t *testing.T) {
	inNamespace(t)
	for _, line := range []string{
		"link add eth0 type veth peer name eth0p", "link set eth0 up", "link set eth0p up",
		"addr add 198.18.0.2/24 dev eth0", "addr add 2001:db8::2/64 dev eth0",
		"route add 172.31.1.1 dev eth0", "route add 10.9.0.0/16 via 198.18.0.1", "route add prohibit 10.8.0.0/16", "route add blackhole 10.7.0.0/16",
	} {
		ip(t, line)
	}
	var all []netip.Addr
	for _, a := range []string{"198.18.0.1", "2001:db8::1", "172.31.1.1", "10.9.0.1", "10.8.0.1", "10.7.0.1", "192.0.2.1", "2001:db8:7::1", "198.18.0.2"} {
		all = append(all, netip.MustParseAddr(a))
	}
	got, err := OnLink(t.Context(), all)
	want := map[netip.Addr]bool{all[0]: true, all[1]: true, all[2]: true}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); err != nil || diff != "" {
		t.Errorf("on link (-want +got):\n%s (%v)", diff, err)
	}
}
