// Package tc loads, attaches and feeds the tcx programs: delivery to workloads, workload and host egress
// policy, the forwarding matrix and the flow table.
package tc

import (
	"net/netip"

	"sluice/xdp/classify"
)

// State is what the tc subsystem should hold, or holds. As with xdp.State, an observed one carries names and the
// digest only.
type State struct {
	Interfaces []Interface // sorted by name
	Generation Generation
	Digest     string
}

// Role is the side of the box an interface stands on. The values equal enum role in abi.h.
type Role uint8

// The roles.
const (
	RoleNone Role = iota
	RoleUplink
	RoleDownstream
	RoleWorkload
	RoleTunnel
	RoleManagement
	NumRoles
)

// Interface is one interface that carries tcx roots, one at ingress and one at egress.
type Interface struct {
	Name string
	Role Role
	// Judge makes the ingress hook judge policy.ingress: for tunnels, and for uplinks that XDP does not guard.
	Judge bool
	SNAT  SNAT
	// FQ says of an uplink that its qdisc keeps departure times: what is paced waits there. Elsewhere it is dropped.
	FQ bool
	// Stack leaves a workload's packets to the kernel once they are judged: path: stack.
	Stack bool
	// Encrypted says of a tunnel that it hides what it carries: there plaintext to strict prefixes may leave.
	Encrypted bool
	// ClampMSS lowers the MSS in TCP SYNs of both directions to what the MTU of a tunnel carries, as it is when they pass.
	ClampMSS bool
}

// SNAT says which sources are translated of what comes in by an interface and leaves by an uplink, and to what.
type SNAT struct {
	// IPv4 and IPv6 translate private sources of the family: RFC 1918, RFC 6598, link-local IPv4, RFC 4193; not those among
	// Generation.Announced.
	IPv4, IPv6 bool
	// All translates every source of these families.
	All bool
	// Address is 1 + an index into Generation.SNATAddresses. Of an uplink its own addresses; of others what their sources
	// become, or 0 for those of the uplink.
	Address uint16
}

// SNATAddress is what sources become, by family. One that is invalid is not there: what needs it is dropped.
type SNATAddress struct{ IPv4, IPv6 netip.Addr }

// Matrix says which roles may forward to which: Matrix[from][to].
type Matrix [NumRoles][NumRoles]bool

// Generation is everything that the live tcx programs are made of.
type Generation struct {
	Self      []netip.Addr // the box's own addresses, sorted
	Failsafe  classify.Policy
	System    classify.Policy
	Ingress   classify.Policy // judges what enters by tunnels; XDP judged the uplinks' packets already
	Egress    classify.Policy // what the node itself originates, at uplink egress
	Workloads []Workload      // sorted by name
	LANs      []LAN           // sorted by interface; those that have a policy
	Matrix    Matrix
	Strict    []netip.Prefix     // plaintext to these is dropped wherever it would leave the box
	OnLink    []OnLink           // but for these, each at its own interface; sorted by prefix, one for each
	Paced     []Paced            // sorted by interface
	Limiters  []classify.Limiter // rules with Limit name theirs by index

	SNATAddresses []SNATAddress
	SNATPorts     classify.PortRange // that sources are translated to
	Announced     []netip.Prefix     // private ones that SNAT leaves as they are, unless it translates all

	FlowSlots uint32
	RuleSlots uint32 // counters of rules, shared by both subsystems: at least those of the policies
	// LimitSlots are buckets of rules with limits, shared in the same way, by rule id; 0: none of either has a limit.
	LimitSlots uint32
	// Tables are the compiled policies, where the caller had to compile them anyway; nil: loading does it. They are no part
	// of the content.
	Tables *classify.Tables `json:"-"`
}

// OnLink is a network on the wire of an interface that is no uplink, and inside a strict prefix, which is shorter.
type OnLink struct {
	Interface string
	Prefix    netip.Prefix
}

// Paced is an interface of a workload or a LAN that may send so much through uplinks and tunnels, and no more.
type Paced struct {
	Interface string
	Rate      uint64 // bits per second, of frames as they leave, Ethernet header included
}

// LAN is an interface of role downstream with policies: Ingress judges what goes to it, Egress what its hosts send. One
// without an entry takes and sends what the matrix allows.
type LAN struct {
	Interface string
	Ingress   classify.Policy
	Egress    classify.Policy
}

// Workload is a namespace behind a veth. Its ingress policy judges what is delivered to it, its egress policy what
// it sends.
type Workload struct {
	Name      string
	Interface string // host side of the veth
	Addresses []netip.Addr
	Ingress   classify.Policy
	Egress    classify.Policy
}
