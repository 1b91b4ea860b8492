package ipsec

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
)

// Listing describes the kernel's states and policies of ours in the calling thread's network namespace, a line each, sorted:
// addresses, SPIs, counters. Keys are not read, let alone told. No state directory and no daemon is needed.
func Listing() ([]string, error) {
	x, err := openXFRM()
	if err != nil {
		return nil, err
	}
	defer x.close()
	states, err := x.states()
	if err != nil {
		return nil, err
	}
	policies, err := x.policies()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range states {
		line := fmt.Sprintf("state %s > %s spi %08x if_id %#x reqid %#x: %d packets, %d bytes, sequence %d, window %d, forged %d, replayed %d, added %d, used %d",
			s.src, s.dst, s.spi, s.ifID, s.reqid, s.packets, s.bytes, s.seq, s.window, s.failed, s.replayed, s.added, s.used)
		if s.dport != 0 {
			line += fmt.Sprintf(", in UDP %d > %d", s.sport, s.dport)
		}
		out = append(out, line)
	}
	ways := map[way]string{in: "in", way(netlink.XFRM_DIR_OUT): "out", fwd: "fwd"}
	for _, p := range policies {
		out = append(out, fmt.Sprintf("policy %s %s if_id %#x reqid %#x: %s - %s", ways[p.way], p.prefix, p.ifID, p.reqid, p.local, p.remote))
	}
	slices.Sort(out)
	return out, nil
}
