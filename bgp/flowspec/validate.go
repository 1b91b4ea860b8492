package flowspec

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// ErrUnfeasible is in every refusal of Validate.
var ErrUnfeasible = errors.New("unfeasible")

// Origin says where a rule comes from.
type Origin struct {
	Neighbor   netip.Addr
	Originator netip.Addr // ORIGINATOR_ID (RFC 4456), or the neighbor
	External   bool       // learned over eBGP
	FirstAS    uint32     // the left-most of AS_PATH; 0: the path is empty or of confederation sequences alone
}

// Route is a unicast route as validation sees it.
type Route struct {
	Prefix     netip.Prefix
	Originator netip.Addr // invalid: it is our own, and no neighbor's
	FirstAS    uint32     // as Origin's: the neighboring AS
}

// RIB is the unicast table of the best routes.
type RIB interface {
	// Best returns the best route of the longest prefix that covers p.
	Best(p netip.Prefix) (Route, bool)
	// Inside calls yield with the best route of every prefix inside p and longer, until it returns false.
	Inside(p netip.Prefix, yield func(Route) bool)
}

// Trust is the operator's: from these neighbors every rule is feasible, also without a destination.
type Trust []netip.Addr

// Validate is nil for a feasible rule (RFC 8955 section 6 with the changes of RFC 9117 and RFC 8956 section 5), or says why
// it is not. It is to be asked again whenever unicast routes change.
func Validate(r Rule, from Origin, rib RIB, trust Trust) error {
	if slices.Contains(trust, from.Neighbor) {
		return nil
	}
	c, ok := r.Component(Destination)
	if !ok {
		return unfeasible("it has no destination prefix")
	}
	if c.Offset != 0 {
		return unfeasible("its destination prefix has an offset")
	}
	best, found := rib.Best(c.Prefix)
	if !found {
		return unfeasible("no unicast route covers %s", c.Prefix)
	}
	if err := sameOrigin(c.Prefix, from, best); err != nil {
		return err
	}
	var err error
	rib.Inside(c.Prefix, func(route Route) bool {
		// Our own routes were received from nobody.
		if route.Originator.IsValid() && route.FirstAS != best.FirstAS {
			err = unfeasible("inside %s, %s comes from AS %d, and the best route from AS %d", c.Prefix, route.Prefix, route.FirstAS, best.FirstAS)
		}
		return err == nil
	})
	return err
}

// sameOrigin is rule b with RFC 9117 section 4.1, then section 4.2.
func sameOrigin(dst netip.Prefix, from Origin, best Route) error {
	within := !from.External && from.FirstAS == 0 // originated inside our own AS
	switch {
	case within || best.Originator.IsValid() && best.Originator == from.Originator:
	case !best.Originator.IsValid():
		return unfeasible("the best route to %s, %s, is our own", dst, best.Prefix)
	default:
		return unfeasible("the best route to %s, %s, is of %s, and the rule of %s", dst, best.Prefix, best.Originator, from.Originator)
	}
	if from.External && from.FirstAS != best.FirstAS {
		return unfeasible("its AS path begins with %d, and that of the best route to %s with %d", from.FirstAS, dst, best.FirstAS)
	}
	return nil
}

// validateBlackhole: a neighbor has nothing dropped but what is ours, and what it may ask for.
func validateBlackhole(r Rule, from Origin, allowed Trust, within []netip.Prefix) error {
	if !slices.Contains(allowed, from.Neighbor) {
		return unasked{unfeasible("its neighbor may not ask for blackholes (blackhole.accept_from)")}
	}
	c, _ := r.Component(Destination)
	for _, ours := range within {
		if ours.Bits() <= c.Prefix.Bits() && ours.Contains(c.Prefix.Addr()) {
			return nil
		}
	}
	return unasked{unfeasible("%s is inside of nothing that we announce", c.Prefix)}
}

// unasked is a refusal that nobody need look after.
type unasked struct{ error }

func (u unasked) Unwrap() error { return u.error }

func unfeasible(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnfeasible, fmt.Sprintf(format, args...))
}
