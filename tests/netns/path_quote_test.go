package netns

import (
	"fmt"
	"testing"

	"sluice/cmd/lab"
)

// TestAFragmentTooBigForThePathIsToldOf: what the router behind quotes is a first fragment, with a header between that of
// IPv6 and the datagram's.
func TestAFragmentTooBigForThePathIsToldOf(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	p.must(p.ToR, fmt.Sprint("ip link set client mtu ", smallMTU))
	p.must(p.Client, fmt.Sprint("ip link set eth0 mtu ", smallMTU))
	p.redirects("a fragment too big", func() {
		eventually(t, func() error { return p.reaches(p.Workload(1), lab.Client6, "-s3000", "-W1") })
	}, []string{"tc web-1 forwarded", "xdp eth0 icmp-error", "tc eth0 delivered"}, "xdp eth0 default-drop") // of an error about the second fragment, which says nothing of the flow
}
