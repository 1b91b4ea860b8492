package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"time"
)

// Config is one whole configuration. Lists keep the order of the file.
type Config struct {
	Node       Node
	Interfaces []Interface
	Routes     []Route
	Sysctls    []Sysctl
	Management []ManagementRule
	Forward    []Forward
	Sets       []Set
	Sockets    []Socket
	Policy     Policy
	Workloads  []Workload
	SNATPorts  PortRange // that sources are translated to; zero: as the machine suggests
	Conntrack  Conntrack
	BGP        *BGP // nil: no speaker
	Tunnels    []Tunnel
	Apply      Apply
	Telemetry  Telemetry

	// Files are the set files that were read, with their contents: they are stored with the revision.
	Files []File
}

// Pos is a place in a file, both counted from 1. Zero means unknown.
type Pos struct {
	File   string
	Line   int
	Column int
}

// File is a file that the configuration names and whose contents belong to the revision.
type File struct {
	Path     string // as written in the configuration
	Contents []byte
}

// Node describes the box itself. The process settings that may also stand here (state_dir, bpf_dir,
// socket) are read by cmd through viper, before the configuration is parsed.
type Node struct {
	Name     string
	StateDir string // "" where the file does not say
	BPFDir   string
	Socket   string
	DNS      []netip.Addr // servers to ask; nil: those of the machine
	Governor Governor

	// Of a node image alone.
	NTP     []netip.Addr // servers of the time; nil: those of the machine
	SSH     *SSH         // nil: nobody may log in over the network
	Console Console
}

// SSH is how root logs in over the network: by keys alone, from where management: lets the port in.
type SSH struct {
	Port           uint16
	AuthorizedKeys []string // lines of authorized_keys(5)
	Pos            Pos
}

// Console is how root logs in where a screen or a serial line is.
type Console struct {
	Login            bool
	PasswordHashFile string // of crypt(5), one line
}

// Role says on which side of the box an interface stands (DESIGN.md section 2.3).
type Role string

// The roles. RoleNone marks an interface that only carries addresses, such as lo.
const (
	RoleNone       Role = ""
	RoleUplink     Role = "uplink"
	RoleDownstream Role = "downstream"
	RoleWorkload   Role = "workload"
	RoleTunnel     Role = "tunnel"
	RoleManagement Role = "management"
)

// XDPMode says how the XDP root is attached.
type XDPMode string

// The XDP modes. Auto tries native and falls back to generic, saying so.
const (
	XDPAuto    XDPMode = "auto"
	XDPNative  XDPMode = "native"
	XDPGeneric XDPMode = "generic"
	XDPNone    XDPMode = "none"
)

// Interface is one entry of interfaces:. A field that the file does not write is zero and stays untouched
// on the machine.
type Interface struct {
	Name      string
	Role      Role
	MTU       int // bytes; 0: unwritten
	Addresses []netip.Prefix
	XDP       XDPMode // XDPNone for every role but uplink
	FailOpen  bool    // what the root does while its slot is empty
	NIC       *NIC    // nil: left as it is

	// Parent and VLAN are those of a VLAN child, 802.1Q; "" and 0 for any other interface.
	Parent string
	VLAN   int
	// Members are those of a bond, LACP how it is run; nil and "" for any other interface.
	Members []string
	LACP    LACP

	// Ingress judges what goes to a LAN (role downstream), Egress what its hosts send. Both accept where the file has neither.
	Ingress   RuleList
	Egress    RuleList
	Bandwidth uint64 // of a LAN: bits per second that its hosts may send out by uplinks and tunnels; 0: any
	SNAT      SNAT   // of what comes in from a LAN
	Pos       Pos
}

// Made says whether Sluice makes the device: a VLAN child or a bond.
func (i *Interface) Made() bool { return i.Parent != "" || len(i.Members) > 0 }

// Judged says whether the file has a policy for the interface.
func (i *Interface) Judged() bool { return i.Ingress.Pos.Line > 0 || i.Egress.Pos.Line > 0 }

// LACP is how a bond is run: 802.3ad with the partner's rate of LACPDUs, or without LACP as active-backup.
type LACP string

// LACPFast asks for one a second, LACPSlow for one in 30 seconds (IEEE 802.1AX section 6.4.4).
const (
	LACPFast LACP = "fast"
	LACPSlow LACP = "slow"
	LACPOff  LACP = "off"
)

// Route is a static route. Several Via make it multipath.
type Route struct {
	Prefix netip.Prefix
	Via    []netip.Addr
	Metric int // 0: the kernel's default
	Pos    Pos
}

// Sysctl is one kernel setting in dotted form, such as net.ipv4.tcp_syncookies.
type Sysctl struct {
	Key, Value string
	Pos        Pos
}

// ManagementRule is one line of management.accept: the failsafe. It matches only the box's own addresses.
type ManagementRule struct {
	Name     string // "management-1" and so on where unnamed
	From     []Ref
	Protocol Protocol
	Ports    []PortRange
	Pos      Pos
}

// Forward permits forwarding from one role to another beyond the default matrix.
type Forward struct {
	From, To Role
	Transit  bool // must be true for uplink to uplink
	Pos      Pos
}

// Set is a named list of prefixes: inline, from files, and from watched files.
type Set struct {
	Name     string
	Prefixes []netip.Prefix // inline and from files, as read (not merged); masked; IPv4-mapped IPv6 is refused
	Files    []string       // as written; their prefixes are in Prefixes, or they are watched
	// Watched are the files of a set with watch: true. What they hold is no part of the revision, so it is not here. As
	// written, and after Resolve as absolute paths.
	Watched []string
	Pos     Pos
}

// Socket is where rules with action: bypass hand packets to: one AF_XDP socket per receive queue of Interfaces, which an
// external program registers.
type Socket struct {
	Name       string
	Interfaces []string // uplinks with XDP; all of them where the file does not say
	Pos        Pos
}

// Ref is one element of from, to, not_from or not_to. Exactly one field is set.
type Ref struct {
	Prefix   netip.Prefix // masked
	Set      string
	Workload string
	Self     bool
}

// Protocol is an IP protocol number, or AnyProtocol.
type Protocol int

// AnyProtocol matches every protocol. ProtocolICMP in a rule without addresses of one family means ICMP for IPv4
// and ICMPv6 for IPv6: the file says "icmp" for 1 and "icmpv6" for 58.
const AnyProtocol Protocol = -1

// Range is inclusive on both ends, in host byte order.
type Range struct{ First, Last uint16 }

// PortRange is a range of ports.
type PortRange = Range

// TCPFlags are bits of byte 13 of the TCP header: which are compared, and which of these must be set. No Mask: any.
type TCPFlags struct{ Mask, Set uint8 }

// ICMPType is a type of the rule's protocol, with a code or AnyCode.
type ICMPType struct {
	Type uint8
	Code int
}

// AnyCode in an ICMPType matches every code.
const AnyCode = -1

// FragmentMatch says which fragments a rule is about.
type FragmentMatch string

// FragmentAny, the default: whole packets and all fragments. FragmentWhole: no fragments. FragmentFragmented: all
// fragments. FragmentFirst: those with the transport header. FragmentLater: those without.
const (
	FragmentAny        FragmentMatch = ""
	FragmentWhole      FragmentMatch = "whole"
	FragmentFragmented FragmentMatch = "fragmented"
	FragmentFirst      FragmentMatch = "first"
	FragmentLater      FragmentMatch = "later"
)

// Action is what a rule or a default does.
type Action string

// The actions of this version.
const (
	Accept Action = "accept"
	Drop   Action = "drop"
	// ActionLimit accepts what is within Rule.Limit and drops the rest.
	ActionLimit Action = "limit"
	// SYNCookie, in policy.ingress: XDP answers SYNs, what else matches is accepted.
	SYNCookie Action = "syn_cookie"
	// Bypass, in policy.ingress, hands the packet to Rule.Socket.
	Bypass Action = "bypass"
)

// Fragments says what happens to non-first fragments that a port rule could have matched.
type Fragments string

// FragmentsDefault gives them the fate of the policy's default; FragmentsAccept passes them;
// FragmentsDrop drops every fragment, the first included. FragmentsTrack gives later ones the fate of the first of their
// datagram, and where that is not known the default's.
const (
	FragmentsDefault Fragments = ""
	FragmentsAccept  Fragments = "accept"
	FragmentsDrop    Fragments = "drop"
	FragmentsTrack   Fragments = "track"
)

// RuleList is an ordered first-match policy.
type RuleList struct {
	Default   Action // Accept where unwritten
	Fragments Fragments
	Rules     []Rule
	Pos       Pos
}

// Rule is one rule of a policy. Empty From and To match every address; Ports are destination ports. A list that is
// empty matches everything.
type Rule struct {
	Name           string
	From, To       []Ref
	NotFrom, NotTo []Ref
	Protocol       Protocol
	Ports          []PortRange
	SourcePorts    []PortRange
	TCPFlags       TCPFlags
	ICMPTypes      []ICMPType
	Fragment       FragmentMatch
	VLANs          []Range  // outermost id, 0: untagged
	Lengths        []Range  // bytes of the IP packet; 65535: and above
	DSCP           []uint8  // code points, 6 bits
	TTL            uint8    // 0: any
	Interfaces     []string // where it comes in, in policy.egress where it leaves
	Action         Action
	Limit          *Limit // with ActionLimit
	Socket         string // with Bypass
	Sample         uint32 // one in so many matching packets is logged; 0: none
	Shadow         bool   // counts, does not act
	Pos            Pos
}

// Limit is a token bucket.
type Limit struct {
	Rate  uint64 // per second: packets, or with Bits bits
	Burst uint64 // packets, or with Bits bytes
	Bits  bool
	// PerSource gives every source its own bucket, a source being a prefix of these lengths.
	PerSource              bool
	IPv4Prefix, IPv6Prefix int
}

// Policy holds the policies of the node itself.
type Policy struct {
	Ingress RuleList // what enters by uplinks, whatever its destination
	Egress  RuleList // what the node itself originates
}

// Workload is a namespace behind a veth whose host side is Interface.
type Workload struct {
	Name      string
	Interface string
	Addresses []netip.Addr // single addresses (/32, /128 in the file)
	Path      Path
	Added     bool // through the API: it stands in no file
	Ingress   RuleList
	Egress    RuleList
	Bandwidth uint64 // bits per second that it may send out by uplinks and tunnels; 0: any
	SNAT      SNAT
	Pos       Pos
}

// SNAT says what becomes of sources where they leave by an uplink. Zero: nothing.
type SNAT struct {
	// Auto translates private sources that this node does not announce to the uplink's own address.
	Auto bool
	// Address, where valid, translates every source of its family.
	Address netip.Addr
}

// String is as the file writes it.
func (s SNAT) String() string {
	switch {
	case s.Auto:
		return "auto"
	case s.Address.IsValid():
		return s.Address.String()
	}
	return "none"
}

// Path is the way that a workload's packets take through the box.
type Path string

// PathRedirect: from hook to hook, past the host's netfilter and upper stack. PathStack: by the kernel's own forwarding, so
// that the host's rules see them; policies, flows and reasons are the same.
const (
	PathRedirect Path = "redirect"
	PathStack    Path = "stack"
)

// Conntrack sizes the flow tables.
type Conntrack struct {
	MaxEntries uint32 // default 131072
}

// Family is a BGP address family as the file writes it.
type Family string

// The families of this version.
const (
	IPv4Unicast  Family = "ipv4-unicast"
	IPv4FlowSpec Family = "ipv4-flowspec"
	IPv6FlowSpec Family = "ipv6-flowspec"
	IPv6Unicast  Family = "ipv6-unicast"
)

// BGP configures the speaker.
type BGP struct {
	ASN       uint32
	RouterID  netip.Addr // IPv4
	Listen    uint16     // TCP port, default 179
	FallOver  bool       // eBGP sessions end with the link that their neighbor is on; default true
	Neighbors []Neighbor
	Advertise []Advertise
	Learn     Learn
	FlowSpec  FlowSpec
	Blackhole Blackhole
	Pos       Pos
}

// Neighbor is one BGP session.
type Neighbor struct {
	Name         string
	Address      netip.Addr
	Port         uint16 // default 179
	ASN          uint32
	LocalAddress netip.Addr // invalid: the kernel chooses
	Passive      bool       // never dials
	FirstAS      bool       // enforce_first_as: of eBGP, default true
	Multihop     uint8      // TTL of an eBGP session; 0: directly connected
	TTLSecurity  uint8      // hops, RFC 5082; 0: off
	Families     []Family   // default: the family of Address
	PasswordFile string
	HoldTime     time.Duration // default 90s
	Keepalive    time.Duration // default: a third of HoldTime
	ConnectRetry time.Duration // default 2s
	RestartTime  time.Duration // graceful restart; 0: off
	MaxPrefixes  PrefixLimit
	Shutdown     bool
	Reason       string // of the shutdown, for the neighbor's operators (RFC 9003)
	BFD          BFD
	Pos          Pos
}

// BFD is how a neighbor's silence is noticed. The zero BFD is none.
type BFD struct {
	Interval   time.Duration // between packets, both ways; default 300ms
	Multiplier uint8         // how many may be missing; default 3
}

// PrefixLimit bounds what a neighbor announces in one family.
type PrefixLimit struct {
	Limit        uint32 // 0: unlimited
	WarnAt       int    // percent of Limit; 0: no warning
	Action       LimitAction
	RestartAfter time.Duration // LimitRestart; default 5m
}

// LimitAction is what follows on too many prefixes.
type LimitAction string

// What follows on too many prefixes.
const (
	LimitStop    LimitAction = "stop"    // the session stays down until somebody clears it; the default
	LimitWarn    LimitAction = "warn"    // an event and a line in the log
	LimitRestart LimitAction = "restart" // down, and up again by itself
)

// Apply holds the checks that a pending revision must pass.
type Apply struct {
	Checks []Check
}

// Check is one health check: either KeepNeighbors or Reach is set.
type Check struct {
	KeepNeighbors bool       // every neighbor up before is up after
	Reach         netip.Addr // answers an ICMP echo
	Pos           Pos
}

// Telemetry says where metrics are served.
type Telemetry struct {
	Metrics netip.AddrPort // invalid: nowhere
}

// SetByName returns the set of that name, or nil.
func (c *Config) SetByName(name string) *Set {
	i := slices.IndexFunc(c.Sets, func(s Set) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Sets[i]
}

// Watched returns every watched set file once, sorted.
func (c *Config) Watched() []string {
	var out []string
	for _, s := range c.Sets {
		out = append(out, s.Watched...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Resolve makes the paths of watched set files absolute: dir is the directory of the configuration. Whoever follows them
// has another working directory, or a stored revision.
func (c *Config) Resolve(dir string) {
	for _, s := range c.Sets {
		for i, path := range s.Watched {
			if !filepath.IsAbs(path) {
				s.Watched[i] = filepath.Join(dir, path)
			}
		}
	}
}

// WorkloadByName returns the workload of that name, or nil.
func (c *Config) WorkloadByName(name string) *Workload {
	i := slices.IndexFunc(c.Workloads, func(w Workload) bool { return w.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Workloads[i]
}
