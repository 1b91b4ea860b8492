// Package xdp loads, attaches and feeds the ingress programs.
package xdp

import (
	"net/netip"

	"sluice/xdp/classify"
	"sluice/xdp/xsk"
)

// State is what the XDP subsystem should hold, or holds. A State that Observe returned carries only names, modes
// and the digest of the live generation: tables are never read back.
type State struct {
	Interfaces []Interface // sorted by name
	Generation Generation
	// Digest identifies the content of Generation and the object it runs (see Generation.Digest). In an observed
	// State it is that of the generation in every slot, or "" where the slots differ or are empty.
	Digest string
}

// Mode is how the root is attached to its interface.
type Mode string

// The modes. Auto is only wanted, never observed.
const (
	Auto    Mode = "auto"
	Native  Mode = "native"
	Generic Mode = "generic"
)

// Interface is one interface that carries the root program.
type Interface struct {
	Name     string
	Mode     Mode
	FailOpen bool
}

// Generation is everything that one live program is made of. Policies are judged in the order failsafe, system,
// ingress; the first two continue by default.
type Generation struct {
	Self      []netip.Addr // the box's own addresses, sorted
	Failsafe  classify.Policy
	System    classify.Policy
	Ingress   classify.Policy
	Limiters  []classify.Limiter // rules with Limit name theirs by index
	FlowSlots uint32             // entries of each flow table, shared with tc
	RuleSlots uint32             // counters of rules, shared by both subsystems: at least those of the policies
	// LimitSlots are buckets of rules with limits, shared in the same way, by rule id; 0: none of either has a limit.
	LimitSlots uint32
	Sockets    []xsk.Socket // that rules with bypass hand packets to
	// SYNListeners are those whose SYNs rules with syn_cookie have answered: sorted, at most abi.MaxSYNListeners. A SYN to
	// another address or port that such a rule matches passes.
	SYNListeners []netip.AddrPort
	// Refuses are the options (abi.ListenerSACK, abi.ListenerWindowScale) that some of them are set not to take. Of those of
	// others it is learned whether they do.
	Refuses map[netip.AddrPort]uint8
	// Workloads are the addresses of workloads, where there are SYNListeners: nobody behind an uplink has one, so SYNs from
	// them are not answered. Sorted.
	Workloads []netip.Addr
	// Children are the VLANs that have an interface of their own, where their frames are judged. Sorted.
	Children []VLANChild
	// Tables are the compiled policies, where the caller had to compile them anyway; nil: loading does it. They are no part
	// of the content.
	Tables *classify.Tables `json:"-"`
}

// VLANChild is a VLAN on an interface: what comes in there with that outermost tag passes.
type VLANChild struct {
	Ifindex uint32
	VLAN    uint16
}

// Facts are what the machine tells about an interface's XDP abilities.
type Facts struct {
	KernelRelease string
	Native        map[string]string // interface -> "" where native XDP worked, else why not
}
