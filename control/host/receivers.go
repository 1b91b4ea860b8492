package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// Receiver is a link on which packets of an interface come in: the interface itself, or a member of a bond.
type Receiver struct {
	Link string
	Kind string // as LinkFact.Kind
	// HidesTags says why XDP can see no VLAN tag here, whatever is switched; "": it can.
	HidesTags string
}

// untagging are kinds of links whose frames come from the kernel, which has put the tag beside them before XDP runs.
var untagging = []string{"vlan", "bridge", "macvlan", "macvtap", "ipvlan", "ipvtap", "vrf", "team"}

// ReceiversOf looks at the named interfaces of the calling thread's network namespace. Those that are not here are left
// out. It needs no privilege and changes nothing.
func ReceiversOf(ctx context.Context, names []string) (map[string][]Receiver, error) {
	out := map[string][]Receiver{}
	if len(names) == 0 {
		return out, nil
	}
	nics, err := openOffloads()
	if err != nil {
		return nil, err
	}
	defer nics.close()
	links, err := netdump.List(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a := l.Attrs()
		if !slices.Contains(names, a.Name) {
			continue
		}
		list := []netlink.Link{l}
		if kindOf(l) == "bond" { // XDP of a bond runs on its members
			list = filter(links, func(m netlink.Link) bool { return m.Attrs().MasterIndex == a.Index })
		}
		for _, m := range list {
			r, err := receiver(nics, m)
			if errors.Is(err, unix.ENODEV) { // it went since it was listed
				continue
			}
			if err != nil {
				return nil, err
			}
			out[a.Name] = append(out[a.Name], r)
		}
	}
	return out, nil
}

func receiver(o offloads, l netlink.Link) (Receiver, error) {
	r := Receiver{Link: l.Attrs().Name, Kind: kindOf(l)}
	_, fixed, err := takingOut(o, r.Link)
	switch {
	case err != nil:
		return r, err
	case slices.Contains(untagging, r.Kind):
		r.HidesTags = "a " + r.Kind + " interface gets its frames without their tags"
	case len(fixed) > 0:
		r.HidesTags = "its driver takes VLAN tags out of frames and cannot be told not to (" + strings.Join(fixed, ", ") + " is on [fixed])"
	}
	return r, nil
}
