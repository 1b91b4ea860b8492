// Package api is the local API: HTTP with JSON on a unix socket that only root may open, its client, and the metrics.
// The JSON names are stable: `-o json` prints these types as they are.
package api

import (
	"net/netip"
	"time"

	"sluice/bgp"
	"sluice/control/engine"
	"sluice/control/node/source"
)

// Candidate is a file on its way to becoming a revision, with the set files that it names.
type Candidate struct {
	Name  string `json:"name"`
	Bytes []byte `json:"bytes"`
	Files []File `json:"files"`
}

// File is a set file; Path is as the configuration writes it.
type File struct {
	Path     string `json:"path"`
	Contents []byte `json:"contents"`
}

// ApplyRequest asks for a revision. Zero ConfirmSeconds asks for no confirmation.
type ApplyRequest struct {
	Candidate      Candidate `json:"candidate"`
	ConfirmSeconds float64   `json:"confirm_seconds,omitempty"`
	Message        string    `json:"message,omitempty"`
	Author         string    `json:"author,omitempty"`
}

// RollbackRequest asks for the content of an earlier revision as a new one.
type RollbackRequest struct {
	Revision       int     `json:"revision"`
	ConfirmSeconds float64 `json:"confirm_seconds,omitempty"`
	Message        string  `json:"message,omitempty"`
	Author         string  `json:"author,omitempty"`
}

// Confirmed is the revision that confirm kept.
type Confirmed struct {
	Revision int `json:"revision"`
}

// StoredConfig is a revision as it was applied.
type StoredConfig struct {
	Meta  Revision `json:"meta"`
	Bytes []byte   `json:"bytes"`
	Files []File   `json:"files"`
}

// ExplainRequest asks what the live programs do with a frame that enters, or with Egress leaves, by an interface.
type ExplainRequest struct {
	Interface string `json:"interface"`
	Packet    string `json:"packet"` // the syntax of package xdp/packet
	Egress    bool   `json:"egress,omitempty"`
}

// Explanation is what became of the packet, hook by hook in the order that it meets them.
type Explanation struct {
	Packet string       `json:"packet"`
	Note   string       `json:"note,omitempty"` // why it does not come so far as the first hook
	Hooks  []HookAnswer `json:"hooks"`
	Bug    string       `json:"bug,omitempty"` // program and reference model disagree: to be reported
}

// HookAnswer is the verdict of one program.
type HookAnswer struct {
	Hook       string `json:"hook"` // xdp, tcx-ingress, tcx-egress
	Interface  string `json:"interface"`
	Verdict    string `json:"verdict"` // drop, pass, redirect
	Reason     string `json:"reason"`
	Text       string `json:"text"`
	Policy     string `json:"policy,omitempty"`
	Rule       string `json:"rule,omitempty"` // policy/name
	File       string `json:"file,omitempty"` // where the rule stands, as stored with the revision
	Line       int    `json:"line,omitempty"`
	RedirectTo string `json:"redirect_to,omitempty"`
	// Source and Destination are what SNAT makes of them. A source without a port: it gets one when it is sent.
	Source      string       `json:"source,omitempty"`
	SourceKept  string       `json:"source_kept,omitempty"` // why snat: auto leaves it as it is
	Destination string       `json:"destination,omitempty"`
	MSS         uint16       `json:"mss,omitempty"`          // what that of a SYN becomes at a tunnel
	Lost        string       `json:"lost,omitempty"`         // why the kernel, which it was left to, does not forward it
	TooLarge    string       `json:"too_large,omitempty"`    // what the kernel, which it was left to, does as it is larger than an MTU
	Ban         *Ban         `json:"ban,omitempty"`          // that dropped it
	Filter      *Filter      `json:"filter,omitempty"`       // of a BGP neighbor, that dropped or redirected it
	Filters     []Filter     `json:"filters,omitempty"`      // all of BGP neighbors that held for it, that one included, in their order
	MoreFilters bool         `json:"more_filters,omitempty"` // that held for it, too
	PassedOver  []PassedOver `json:"passed_over,omitempty"`
}

// PassedOver is a rule that came before the one that acted, and why it did not match.
type PassedOver struct {
	Rule string `json:"rule"`
	Line int    `json:"line,omitempty"`
	Why  string `json:"why"`
}

// Status is the answer of `show status`.
type Status struct {
	Node          string        `json:"node"`
	Version       string        `json:"version"`
	Image         string        `json:"image,omitempty"` // the version of the node image that this runs on
	PID           int           `json:"pid"`
	Started       time.Time     `json:"started"`
	StateDir      string        `json:"state_dir"`
	BPFDir        string        `json:"bpf_dir"`
	Engine        engine.Status `json:"engine"`
	XDPGeneration string        `json:"xdp_generation"` // digest; "" when the slots differ or are empty
	TCGeneration  string        `json:"tc_generation"`
	Neighbors     int           `json:"bgp_neighbors"`
	Established   int           `json:"bgp_established"`
	Drain         *Drain        `json:"drain,omitempty"`     // absent without one
	Conntrack     *Conntrack    `json:"conntrack,omitempty"` // absent before the first sweep of the flow tables
	Tunnels       *TunnelCount  `json:"tunnels,omitempty"`   // absent without tunnels
	Processes     []Process     `json:"processes"`           // that live on when the daemon ends
	Boot          *Boot         `json:"boot,omitempty"`      // on a node image: where FILE came from
}

// Boot is the configuration that a node image found at this boot, and what became of it.
type Boot = source.Boot

// Interface is one line of `show interfaces`.
type Interface struct {
	Name      string         `json:"name"`
	Role      string         `json:"role"`
	Index     int            `json:"index"` // 0: the interface is not there
	Up        bool           `json:"up"`
	Carrier   bool           `json:"carrier"`
	MTU       int            `json:"mtu"`
	Driver    string         `json:"driver,omitempty"`
	Addresses []netip.Prefix `json:"addresses"`
	XDPWanted string         `json:"xdp_wanted,omitempty"`
	XDPMode   string         `json:"xdp_mode,omitempty"`
	XDPWhy    string         `json:"xdp_why,omitempty"` // why it is not native
	TCX       bool           `json:"tcx"`
	RxQueues  int            `json:"rx_queues,omitempty"` // in use; 0, as of rings: the driver does not say
	RxRing    int            `json:"rx_ring,omitempty"`   // descriptors of a queue
	TxRing    int            `json:"tx_ring,omitempty"`
	RxPackets uint64         `json:"rx_packets"`
	RxBytes   uint64         `json:"rx_bytes"`
	TxPackets uint64         `json:"tx_packets"`
	TxBytes   uint64         `json:"tx_bytes"`
}

// Reason is one counter: what happened at a hook of an interface, and why.
type Reason struct {
	Hook      string `json:"hook"` // xdp, tc
	Interface string `json:"interface"`
	Reason    string `json:"reason"`
	Fate      string `json:"fate"` // pass, drop, stack, answer, redirect
	Text      string `json:"text"`
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
}

// Set is one named set.
type Set struct {
	Name     string `json:"name"`
	Prefixes int    `json:"prefixes"`
	IPv4     int    `json:"ipv4"`
	IPv6     int    `json:"ipv6"`

	Files       []string   `json:"files"`                 // as the configuration writes them
	Watched     bool       `json:"watched"`               // what the files hold is followed, and no part of the revision
	LastChange  *time.Time `json:"last_change,omitempty"` // of a watched file, since the daemon started
	LastError   string     `json:"last_error,omitempty"`  // why what a watched file holds now is not live
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
}

// What the engine itself says.
type (
	Plan         = engine.Plan
	Step         = engine.Step
	Result       = engine.Result
	Mended       = engine.Mended
	Revision     = engine.Meta
	Notice       = engine.Notice
	Pending      = engine.PendingStatus
	EngineStatus = engine.Status
)

// Socket is one bypass socket on one interface, in `show sockets`.
type Socket struct {
	Name      string `json:"name"`
	Interface string `json:"interface"`
	Path      string `json:"path"` // of the XSKMAP in which a program registers, by receive queue
	// Queues are the receive queues in use, and those beyond them that somebody is registered for. Where the driver does
	// not say which are in use, the latter alone.
	Queues  []SocketQueue `json:"queues"`
	Counted bool          `json:"counted"` // whether losses are
	Lost    SocketLost    `json:"lost"`
}

// SocketQueue is one receive queue of a socket's interface. Packets of a queue that nobody is registered for take the
// kernel's path.
type SocketQueue struct {
	Queue      uint32 `json:"queue"`
	Registered bool   `json:"registered"`
	InUse      *bool  `json:"in_use,omitempty"` // absent: the driver does not say
}

// SocketLost are packets that were handed to a socket and did not arrive, by cause.
type SocketLost struct {
	NoFrame    uint64 `json:"no_frame"`    // its fill ring was empty, or the frame larger than a chunk
	RingFull   uint64 `json:"ring_full"`   // its receive ring was full
	WrongPlace uint64 `json:"wrong_place"` // bound to another interface or queue than it is registered for
	Other      uint64 `json:"other"`
}

// What the subsystems themselves say, for `show bgp` and `show routes`.
type (
	Neighbor = bgp.NeighborStatus
	// Dial is the last attempt to connect to one, where it failed.
	Dial    = bgp.Dial
	Route   = bgp.RouteStatus
	Routes  = bgp.Routes
	Session = bgp.Event

	MessageCounts = bgp.MessageCounts
)

// Gone returns the ranges of numbers, first and last, that a history lacks: revisions that are not kept any more.
func Gone(history []Revision) [][2]int { return engine.Gone(history) }
