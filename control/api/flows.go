package api

import "context"

// FlowFilter chooses tracked flows: a flow must be all that is asked for. Empty, it chooses all.
type FlowFilter struct {
	Address    string `json:"address,omitempty"` // an address or a prefix: of either end, or that it is translated to
	Port       uint16 `json:"port,omitempty"`    // of either end, or that it is translated to
	Protocol   string `json:"protocol,omitempty"`
	State      string `json:"state,omitempty"`
	Workload   string `json:"workload,omitempty"` // opened it or is an end of it
	Rule       string `json:"rule,omitempty"`     // policy/name, or policy/default: let it in
	Translated bool   `json:"translated,omitempty"`
}

// FlowsRequest asks for flows, or only for their numbers.
type FlowsRequest struct {
	FlowFilter
	Limit int  `json:"limit,omitempty"` // the first so many; 0: DefaultFlows
	Count bool `json:"count,omitempty"` // no flows, only their numbers
}

// DefaultFlows are shown where nobody says how many.
const DefaultFlows = 100

// Flows are those that were asked for, and numbers of all that the filter chose.
type Flows struct {
	Total     int            `json:"total"`
	States    map[string]int `json:"states"`
	Workloads map[string]int `json:"workloads"` // by name; flows of none are left out
	Flows     []Flow         `json:"flows"`     // sorted by origin, protocol, addresses and ports
}

// Flow is one tracked flow, in the direction of its first packet.
type Flow struct {
	Origin       string  `json:"origin"` // inside: the node, a workload or a LAN opened it; outside
	Protocol     string  `json:"protocol"`
	Source       string  `json:"source"` // address:port
	Destination  string  `json:"destination"`
	TranslatedTo string  `json:"translated_to,omitempty"` // its source on the wire
	State        string  `json:"state"`                   // new, replied, established, closing, closed, revoked
	AgeSeconds   float64 `json:"age_seconds"`
	IdleSeconds  float64 `json:"idle_seconds"` // to a second
	// Packets and bytes from who opened it, and toward it.
	Packets         uint64 `json:"packets"`
	Bytes           uint64 `json:"bytes"`
	AnsweredPackets uint64 `json:"answered_packets"`
	AnsweredBytes   uint64 `json:"answered_bytes"`
	// Rules let it in, as policy/name or policy/default: of who sends and of who receives. Rules that are gone are left out.
	Rules    []string `json:"rules,omitempty"`
	Workload string   `json:"workload,omitempty"` // that opened it, or that it leads to
	LAN      string   `json:"lan,omitempty"`      // interface of the LAN that opened it
}

// FlowsCleared is how many flows were forgotten.
type FlowsCleared struct {
	Flows int `json:"flows"`
}

// ClearFlowsRequest forgets flows with their translations.
type ClearFlowsRequest struct {
	FlowFilter
	All bool `json:"all,omitempty"` // must be said where the filter is empty
}

// FlowEvent is what became of a flow.
type FlowEvent struct {
	Change string `json:"change"` // new, proven, closed, revoked
	Flow
}

// Conntrack is the state of the flow tables, as the last sweep (every 5 s) found it.
type Conntrack struct {
	Flows        TableFill      `json:"flows"`     // proven: nothing pushes them out
	FreshOut     TableFill      `json:"fresh_out"` // not proven, opened by the inside: the least recently used go first
	FreshIn      TableFill      `json:"fresh_in"`  // the same, by the outside
	Translations int            `json:"translations"`
	States       map[string]int `json:"states"`
	// Since the machine booted: proven flows that found no room, that had to wait for their owner's share, and new ones
	// that could not be entered at all.
	Full    uint64 `json:"full"`
	Crowded uint64 `json:"crowded"`
	Unmade  uint64 `json:"unmade"`
}

// TableFill is how full a table is.
type TableFill struct {
	Entries int `json:"entries"`
	Max     int `json:"max"`
}

// Flows reads tracked flows.
func (c *Client) Flows(ctx context.Context, in FlowsRequest) (Flows, error) {
	return post[Flows](ctx, c, "flows", in)
}

// ClearFlows forgets tracked flows: what a packet of one enters again is another flow.
func (c *Client) ClearFlows(ctx context.Context, in ClearFlowsRequest) (FlowsCleared, error) {
	return post[FlowsCleared](ctx, c, "clear/flows", in)
}
