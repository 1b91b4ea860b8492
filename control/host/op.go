package host

import (
	"context"
	"fmt"
	"strings"
)

// Op is one step: one attribute of ours set, or given up. Doing it twice is doing it once.
type Op interface {
	fmt.Stringer
	// Teardown says that the step takes away or gives back.
	Teardown() bool

	apply(ctx context.Context, h *Host) error
}

type (
	setSysctl  struct{ Sysctl }
	dropSysctl struct{ Sysctl }
	setMTU     struct {
		link string
		mtu  int
	}
	dropMTU  struct{ link string }
	setGroup struct {
		link  string
		group int
	}
	dropGroup   struct{ link string }
	setUp       struct{ link string }
	dropUp      struct{ link string }
	setAddress  struct{ Address }
	dropAddress struct{ Address }
	setRoute    struct{ Route }
	dropRoute   struct{ Route }
	setRule     struct{ Rule }
	dropRule    struct{ Rule }
)

func (setSysctl) Teardown() bool   { return false }
func (setMTU) Teardown() bool      { return false }
func (setGroup) Teardown() bool    { return false }
func (setUp) Teardown() bool       { return false }
func (setAddress) Teardown() bool  { return false }
func (setRoute) Teardown() bool    { return false }
func (setRule) Teardown() bool     { return false }
func (dropSysctl) Teardown() bool  { return true }
func (dropMTU) Teardown() bool     { return true }
func (dropGroup) Teardown() bool   { return true }
func (dropUp) Teardown() bool      { return true }
func (dropAddress) Teardown() bool { return true }
func (dropRoute) Teardown() bool   { return true }
func (dropRule) Teardown() bool    { return true }

// Forwarding is what the switches of forwarding make, and bounds what they build on: the groups and rules that keep what enters from
// outside from leaving there.
const (
	Forwarding = "forwarding"
	bounds     = "bounds"
)

// Every step stands for itself but for these.

func (setMTU) Builds() (what string, on []string)     { return "", nil }
func (setGroup) Builds() (what string, on []string)   { return bounds, nil }
func (setUp) Builds() (what string, on []string)      { return "", nil }
func (setAddress) Builds() (what string, on []string) { return "", nil }
func (setRoute) Builds() (what string, on []string)   { return "", nil }
func (setDevice) Builds() (what string, on []string)  { return "", nil }
func (setQdisc) Builds() (what string, on []string)   { return "", nil }
func (setInner) Builds() (what string, on []string)   { return "", nil }
func (setTags) Builds() (what string, on []string)    { return "", nil }

func (o setSysctl) Builds() (what string, on []string) {
	if switchesForwarding(sysctlID(o.Key)) {
		return Forwarding, []string{bounds}
	}
	return "", nil
}

func (o setRule) Builds() (what string, on []string) {
	if o.InLink != "" { // those of tunnels choose a way for the box's own packets
		return bounds, nil
	}
	return "", nil
}

func (o setSysctl) String() string  { return fmt.Sprintf("set sysctl %s = %s", o.Key, o.Value) }
func (o dropSysctl) String() string { return fmt.Sprintf("restore sysctl %s", o.Key) }
func (o setMTU) String() string     { return fmt.Sprintf("set link %s mtu %d", o.link, o.mtu) }
func (o dropMTU) String() string    { return fmt.Sprintf("restore link %s mtu", o.link) }
func (o setGroup) String() string   { return fmt.Sprintf("set link %s group %d", o.link, o.group) }
func (o dropGroup) String() string  { return fmt.Sprintf("restore link %s group", o.link) }
func (o setUp) String() string      { return fmt.Sprintf("set link %s up", o.link) }
func (o dropUp) String() string     { return fmt.Sprintf("give back link %s", o.link) }
func (o setAddress) String() string { return "set " + o.Address.String() }
func (o setRoute) String() string   { return "set " + o.Route.String() }
func (o setRule) String() string    { return "add " + o.Rule.String() }
func (o dropRule) String() string   { return "delete " + o.Rule.String() }

func (o dropAddress) String() string {
	if o.Adopted {
		return "leave " + o.Address.String() + " as it was found"
	}
	return "delete " + o.Address.String()
}

func (o dropRoute) String() string {
	if o.Adopted {
		return "leave " + o.Route.String() + " as it was found"
	}
	return "delete " + o.Route.String()
}

// String is in the words of ip(8).
func (a Address) String() string { return fmt.Sprintf("address %s dev %s", a.Prefix, a.Link) }

// String is in the words of ip(8).
func (r Route) String() string {
	var b strings.Builder
	b.WriteString("route ")
	if r.Type != Unicast {
		b.WriteString(string(r.Type) + " ")
	}
	b.WriteString(r.Prefix.String())
	for _, via := range r.Via {
		fmt.Fprintf(&b, " via %s", via)
	}
	if r.Link != "" {
		fmt.Fprintf(&b, " dev %s", r.Link)
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.Table != mainTable {
		fmt.Fprintf(&b, " table %d", r.Table)
	}
	return b.String()
}

// String is in the words of ip(8).
func (r Rule) String() string {
	family := "IPv4"
	if r.IPv6 {
		family = "IPv6"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s rule %d", family, r.Priority)
	if r.From.IsValid() {
		fmt.Fprintf(&b, " from %s", r.From)
	}
	if r.To.IsValid() {
		fmt.Fprintf(&b, " to %s", r.To)
	}
	if r.Mask != 0 {
		fmt.Fprintf(&b, " fwmark %#x/%#x", r.Mark, r.Mask)
	}
	if r.InLink != "" {
		fmt.Fprintf(&b, " iif %s", r.InLink)
	}
	if r.OutLink != "" {
		fmt.Fprintf(&b, " oif %s", r.OutLink)
	}
	if r.Prohibit {
		return b.String() + " prohibit"
	}
	fmt.Fprintf(&b, " lookup %d", r.Table)
	if r.SuppressGroup != 0 {
		fmt.Fprintf(&b, " suppress_ifgroup %d", r.SuppressGroup)
	}
	if r.Shortest != 0 {
		fmt.Fprintf(&b, " suppress_prefixlength %d", r.Shortest-1)
	}
	return b.String()
}
