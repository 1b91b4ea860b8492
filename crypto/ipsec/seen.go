package ipsec

import "net/netip"

// kernel is what was last seen there of ours; own changes are entered.
type kernel struct {
	states   map[owner][]sa
	policies map[selector]policy
}

// owner is whose states and policies are: a peer of a tunnel.
type owner struct{ ifID, reqid uint32 }

// selector is what makes a policy the same policy.
type selector struct {
	ifID   uint32
	way    way
	prefix netip.Prefix
}

func (p policy) key() selector { return selector{p.ifID, p.way, p.prefix} }

// look reads the kernel.
func (d *Driver) look() error {
	if err := d.lookAtStates(); err != nil {
		return err
	}
	policies, err := d.xfrm.policies()
	if err != nil {
		return err
	}
	d.seen.policies = map[selector]policy{}
	for _, p := range policies {
		d.seen.policies[p.key()] = p
	}
	return nil
}

func (d *Driver) lookAtStates() error {
	states, err := d.xfrm.states()
	if err != nil {
		return err
	}
	d.seen.states = map[owner][]sa{}
	for _, s := range states {
		o := owner{s.ifID, s.reqid}
		d.seen.states[o] = append(d.seen.states[o], s)
	}
	return nil
}
