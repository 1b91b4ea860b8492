package host

import (
	"strings"
	"testing"
)

func TestForeignSecondaryAddressesOutliveOurPrimary(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	before := machine(t)
	h := open(t, t.TempDir())
	apply(t, h, State{Addresses: []Address{{Link: "eth0", Prefix: pfx("198.18.0.2/24")}}})
	ip(t, "addr add 198.18.0.3/24 dev eth0")
	has(t, ip(t, "addr show dev eth0"), "198.18.0.3/24 scope global secondary")
	down(t, h)
	has(t, ip(t, "addr show dev eth0"), "198.18.0.3/24 scope global eth0")
	ip(t, "addr del 198.18.0.3/24 dev eth0")
	same(t, "the machine", before, machine(t))
}

func TestPrefixLengthOfAnAddressChanges(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	before := machine(t)
	h := open(t, t.TempDir())
	for _, length := range []string{"24", "30", "25"} {
		want := State{Addresses: []Address{
			{Link: "eth0", Prefix: pfx("198.18.0.2/" + length)}, {Link: "eth0", Prefix: pfx("2001:db8::2/" + length)},
		}}
		apply(t, h, want)
		has(t, ip(t, "-4 addr show dev eth0"), "198.18.0.2/"+length)
		if n := strings.Count(ip(t, "addr show dev eth0"), "scope global"); n != 2 {
			t.Errorf("%d addresses instead of 2 with /%s", n, length)
		}
	}
	down(t, h)
	ip(t, "addr add 2001:db8::2/64 dev eth0 nodad")
	err := h.Apply(t.Context(), setAddress{Address{Link: "eth0", Prefix: pfx("2001:db8::2/48")}})
	if err == nil || !strings.Contains(err.Error(), "the link has it as 2001:db8::2/64, which is not ours") {
		t.Errorf("got %v", err)
	}
	ip(t, "addr del 2001:db8::2/64 dev eth0")
	same(t, "the machine", before, machine(t))
}

func TestMTUThatWouldTakeIPv6AwayIsRefused(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	before := machine(t)
	h := open(t, t.TempDir())
	for mtu, text := range map[int]string{1000: "below 1280 bytes the kernel takes IPv6 off the link", 100000: "the driver refuses 100000 bytes"} {
		err := h.Apply(t.Context(), setMTU{"eth0", mtu})
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
	same(t, "the machine", before, machine(t))
	if !h.ledger.empty() {
		t.Errorf("the ledger claims %+v", h.ledger)
	}
}

func TestLinkThatWasDownStaysUpWhileOthersUseIt(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	ip(t, "link set eth0 down")
	ip(t, "link set eth1 down")
	h := open(t, t.TempDir())
	apply(t, h, State{Links: []Link{{Name: "eth0", Up: true}, {Name: "eth1", Up: true}}})
	ip(t, "addr add 198.18.7.1/24 dev eth1")
	down(t, h)
	hasNot(t, ip(t, "link show dev eth0"), ",UP")
	has(t, ip(t, "link show dev eth1"), ",UP")
}

func TestLinkMadeAgainUnderItsOldNameIsNotOurs(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	h := open(t, t.TempDir())
	want := State{
		Links:     []Link{{Name: "eth0", Up: true, MTU: 1400}},
		Addresses: []Address{{Link: "eth0", Prefix: pfx("198.18.0.2/30")}},
		Sysctls:   []Sysctl{{"net.ipv4.conf.eth0.rp_filter", "2"}},
	}
	apply(t, h, want)
	ip(t, "link del eth0")
	if ops := Diff(observe(t, h), State{}); len(ops) > 0 {
		t.Errorf("with the link gone there is still %v", ops)
	}
	ip(t, "link add eth0 mtu 1300 type veth peer name tor0")
	ip(t, "link set eth0 up")
	ip(t, "link set tor0 up")
	settled(t)
	ip(t, "addr add 198.18.0.2/30 dev eth0")
	before := machine(t)
	if got := len(apply(t, h, want)); got != 4 {
		t.Errorf("%d steps instead of 4 on the new link", got)
	}
	down(t, h)
	same(t, "the machine", before, machine(t))
}

func TestRenamedLinkIsStillKnown(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	h := open(t, t.TempDir())
	apply(t, h, State{Addresses: []Address{{Link: "eth0", Prefix: pfx("198.18.0.2/30")}}})
	ip(t, "link set eth0 down")
	ip(t, "link set eth0 name lan0")
	down(t, h)
	hasNot(t, ip(t, "addr"), "198.18.0.2")
}
