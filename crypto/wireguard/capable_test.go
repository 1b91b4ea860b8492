package wireguard

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The machine of a test may have any of the kernel's parts or none; what it says must be what a try in a namespace of the
// test's own gives.
func TestCapabilitiesAreWhatATryGives(t *testing.T) {
	got, err := Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.TUN != nil {
		t.Errorf("the userspace backend is tested here, and yet %v", got.TUN)
	}
	if got.Kernel != nil && !errors.Is(got.Kernel, unix.EOPNOTSUPP) {
		t.Errorf("a kernel without WireGuard says EOPNOTSUPP, this one %v", got.Kernel)
	}
	if got.Plug != nil && !errors.Is(got.Plug, unix.ENOENT) {
		t.Errorf("a kernel without sch_plug says ENOENT, this one %v", got.Plug)
	}
	for _, name := range []string{"probe", "probetun"} {
		if _, err := netlink.LinkByName(name); err == nil {
			t.Errorf("%s was made where everybody sees it", name)
		}
	}
}
