package config

import (
	"net/netip"
	"time"
)

// Advertise is one entry of advertise: one of Prefixes, Workloads, Tunnels and Aggregate, to whom, when, and how.
type Advertise struct {
	Prefixes    []netip.Prefix
	Workloads   bool
	Tunnels     bool         // the prefixes of the tunnels' peers
	Aggregate   netip.Prefix // while a longer one inside it is announced
	SummaryOnly bool         // these longer ones are not, where the aggregate is

	To   []string // names of neighbors, those of groups among them; nil: all
	When When

	Communities      []uint32 // RFC 1997, ASN in the high half
	LargeCommunities []LargeCommunity
	LocalPreference  uint32     // in iBGP; 0: unwritten
	MED              *uint32    // nil: unwritten
	Prepend          int        // in eBGP; 0: unwritten
	NextHop          netip.Addr // of prefixes of its family; invalid: the session's
	Pos              Pos
}

// When is what an entry waits for: at least one of each list that is written.
type When struct {
	Workloads []string     // on the machine
	Reach     []netip.Addr // answers probes
}

// Always says that there is nothing to wait for.
func (w *When) Always() bool { return len(w.Workloads) == 0 && len(w.Reach) == 0 }

// Learn says which routes of neighbors are believed and go to the kernel. No Accept entry: none.
type Learn struct {
	ECMP   int // paths per prefix, default 1
	Metric int // default 20
	Table  int // 0: main
	Reject []Filter
	Accept []Filter
}

// FlowSpec says which filters of neighbors count. The zero FlowSpec: no neighbor carries any.
type FlowSpec struct {
	AcceptFrom []string      // neighbors whose filters need no unicast route of theirs; nil: none
	MaxRules   int           // default 1000
	MaxAge     time.Duration // how long filters outlive their session; default 1h
	Redirects  []FlowSpecRedirect
}

// FlowSpecRedirect says to which socket packets go that a filter redirects to a target.
type FlowSpecRedirect struct {
	Target string // as flowspec.Action has it: a route target or an address
	Socket string
}

// Blackhole says who may have destinations of ours dropped (RFC 7999). The zero Blackhole: nobody.
type Blackhole struct {
	AcceptFrom  []string
	Communities []uint32 // any of them asks for it; default 65535:666
	MaxPrefixes int      // default 100
	MaxAge      time.Duration
}

// Filter matches routes that fit all that it says.
type Filter struct {
	PrefixMatch               // no Prefix: any
	From             []string // names of neighbors, those of groups among them; nil: any
	ASPath           string   // "": any
	Communities      []uint32 // all of them
	LargeCommunities []LargeCommunity
	LocalPreference  uint32 // of Accept, 0: left as it is
	Pos              Pos
}

// PrefixMatch matches prefixes inside Prefix whose length is between GE and LE. A bare prefix is exact.
type PrefixMatch struct {
	Prefix netip.Prefix
	GE, LE int
}

// Probed are the addresses that the file wants probed for BGP, each once, in its order.
func (c *Config) Probed() []netip.Addr {
	if c == nil || c.BGP == nil {
		return nil
	}
	var out []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, e := range c.BGP.Advertise {
		for _, a := range e.When.Reach {
			if !seen[a] {
				seen[a] = true
				out = append(out, a)
			}
		}
	}
	return out
}
