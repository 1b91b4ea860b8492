package host

import (
	"errors"
	"io/fs"
	"slices"
)

// Reach is the part of a state by which the machine is managed, complete enough to be brought up by itself after a boot.
func (s State) Reach() State {
	kept := s.Kept()
	kept.Links = filter(s.Links, func(l Link) bool {
		return slices.ContainsFunc(kept.Addresses, func(a Address) bool { return a.Link == l.Name }) ||
			slices.ContainsFunc(kept.Devices, func(d Device) bool {
				return d.Name == l.Name || d.Parent == l.Name || slices.Contains(d.Members, l.Name)
			})
	})
	for i := range kept.Links {
		kept.Links[i].Group = 0 // the rules that know it are of a revision
	}
	return kept
}

// StopForwarding has the kernel forward nothing, of either family: for a machine that no revision stands on.
func StopForwarding() error {
	var errs []error
	for _, path := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := writeSysctl(path, "0"); !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
