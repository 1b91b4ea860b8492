// Package host owns, over netlink and /proc/sys, exactly the attributes of links, addresses, routes and sysctls that
// the configuration writes. What is not in State is never touched.
package host

import "net/netip"

// RouteProtocol marks the routes and rules that this package owns (rtm_protocol).
const RouteProtocol = 188

// State is what the host subsystem should hold, or holds of ours.
type State struct {
	Devices   []Device      // sorted by name
	Links     []Link        // sorted by name
	Addresses []Address     // sorted by link, then prefix
	Routes    []Route       // sorted by table, prefix, metric
	Rules     []Rule        // sorted by priority, then family
	Sysctls   []Sysctl      // sorted by key
	Inner     []InnerSysctl // of workloads' namespaces, sorted by link, then key
	Tags      []Tags        // sorted by link
	Qdiscs    []Qdisc       // sorted by link
	Tunings   []Tuning      // sorted by link, then what
}

// Link is an existing link whose attributes the file writes.
type Link struct {
	Name string
	Up   bool // set up where true; never set down
	MTU  int  // bytes; 0: untouched
	// Group is the link group (IFLA_GROUP); 0: untouched. Rules suppress routes by it.
	Group int
}

// Address is one address on a link.
type Address struct {
	Link   string
	Prefix netip.Prefix // not masked
	// Keep leaves the address in place on down: it is how the operator reaches the box.
	Keep bool
	// Adopted is set by Observe alone: the address was there before it was wanted, so it is never removed. Diff
	// ignores it.
	Adopted bool
}

// RouteType is the kernel's kind of route.
type RouteType string

// The route types in use.
const (
	Unicast   RouteType = "unicast"
	Prohibit  RouteType = "prohibit"
	Blackhole RouteType = "blackhole"
)

// Route is one route of protocol 188. Via empty and Link set is an on-link route.
type Route struct {
	Prefix netip.Prefix
	Type   RouteType
	Via    []netip.Addr
	Link   string
	Metric int
	Table  int  // 254 is main
	Keep   bool // stays on down
	// Adopted is set by Observe alone: an equal route of another protocol was there before. Diff ignores it.
	Adopted bool
}

// Rule is a routing rule. It either looks into Table, passing over routes that lead into SuppressGroup or are shorter than
// Shortest, or prohibits. A condition that is zero holds always.
type Rule struct {
	Priority      int
	IPv6          bool
	InLink        string       // by which the packet enters
	OutLink       string       // that its socket is bound to
	From, To      netip.Prefix // masked
	Mark, Mask    uint32       // the packet's mark, of the bits in Mask; no Mask: any mark
	Table         int
	SuppressGroup int // 0: none
	Shortest      int // bits; 0: all routes
	Prohibit      bool
}

// Sysctl is one key in dotted form, without leading net if the key has another root. The value before ours is kept in
// the ledger and restored on down.
type Sysctl struct{ Key, Value string }

// InnerSysctl is a key in the network namespace at the other end of a workload's veth. Like Sysctl it is restored on
// down, where that namespace is still there.
type InnerSysctl struct{ Link, Key, Value string }

// Facts are what the machine says about itself; they carry no wishes.
type Facts struct {
	KernelRelease string
	// LocalPorts are those that the kernel gives to sockets of its own choice (net.ipv4.ip_local_port_range, which IPv6 shares):
	// the first and the last. Zero: not known.
	LocalPorts [2]uint16
	Links      []LinkFact // sorted by name
	// Behind tells of the interfaces of workloads that were asked about: WorkloadsBehind.
	Behind map[string]Behind
	// Receivers are the links that what enters by an interface comes in on: ReceiversOf, of those that were asked about.
	Receivers map[string][]Receiver
	// OnLink are the addresses that were asked about and that no router is needed for: OnLink.
	OnLink map[netip.Addr]bool
	// NoDevices says of kinds of device that were asked about why the kernel cannot make them: DevicesLacking.
	NoDevices map[string]string
	// Queues are those of the uplinks that were asked about: QueuesOf.
	Queues map[string]Queue
	// NICs are those of links that were asked about: NICsOf. Processors are nil where nobody asked.
	NICs       map[string]NIC
	Processors *Processors
}

// LinkFact is one link of the daemon's namespace.
type LinkFact struct {
	Name      string
	Index     int
	Kind      string // "veth", "netkit", "bond", "vlan", "" for a physical one
	MTU       int
	Up        bool
	Carrier   bool
	Addresses []netip.Prefix // not masked
	PeerHere  bool           // a veth or netkit whose peer is in this same namespace
	VRF       string         // that it belongs to; "": none
	Alias     string         // says whose a link is: path.Alias of a tunnel's
}
