package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// MonitorRequest says what to tell of.
type MonitorRequest struct {
	Drops bool // samples of dropped packets as well
	Flows bool // what becomes of flows as well
}

// EventType says which field of an Event is set.
type EventType string

// The types of events.
const (
	EventBegin    EventType = "begin"    // the first one: from here on nothing is missed without being told
	EventEngine   EventType = "engine"   // Engine
	EventBGP      EventType = "bgp"      // BGP
	EventLink     EventType = "link"     // Link
	EventBan      EventType = "ban"      // Ban, with what happened to it in Text
	EventFlowSpec EventType = "flowspec" // Filter, with what happened to it in Text: Filter*
	EventSetFile  EventType = "set"      // SetFile
	EventTunnel   EventType = "tunnel"   // Tunnel
	EventDrop     EventType = "drop"     // Drop
	EventLog      EventType = "log"      // Log
	EventFlow     EventType = "flow"     // Flow
	EventUnseen   EventType = "unseen"   // Count drops were not sampled, or of flows, with Text flows: there were too many
	EventLost     EventType = "lost"     // Count events were not delivered: the reader was too slow
	EventNote     EventType = "note"     // Text alone
)

// Event is one line of `sluice monitor -o json`.
type Event struct {
	Time    time.Time    `json:"time"`
	Type    EventType    `json:"type"`
	Text    string       `json:"text,omitempty"`
	Count   uint64       `json:"count,omitempty"`
	Engine  *Notice      `json:"engine,omitempty"`
	BGP     *Session     `json:"bgp,omitempty"`
	Link    *Link        `json:"link,omitempty"`
	Ban     *Ban         `json:"ban,omitempty"`
	Filter  *Filter      `json:"filter,omitempty"`
	SetFile *SetFile     `json:"set_file,omitempty"`
	Tunnel  *TunnelEvent `json:"tunnel,omitempty"`
	Drop    *Drop        `json:"drop,omitempty"`
	Log     *Logged      `json:"log,omitempty"`
	Flow    *FlowEvent   `json:"flow,omitempty"`
}

// UnseenFlows is the Text of an EventUnseen that is about flows.
const UnseenFlows = "flows"

// Link is the state of a link after it changed.
type Link struct {
	Name      string `json:"name"`
	Exists    bool   `json:"exists"`
	Up        bool   `json:"up"`
	Carrier   bool   `json:"carrier"`
	Addresses bool   `json:"addresses_changed,omitempty"`
}

// SetFile is a watched set file that changed, that cannot be taken as it is, or, with neither Added nor Removed nor Error,
// one that is good again and holds what it held before.
type SetFile struct {
	File     string   `json:"file"`
	Sets     []string `json:"sets"`     // that name it
	Prefixes int      `json:"prefixes"` // live now
	Added    int      `json:"added,omitempty"`
	Removed  int      `json:"removed,omitempty"`
	Error    string   `json:"error,omitempty"` // why what was good before goes on
}

// Drop is one sampled packet that was dropped.
type Drop struct {
	Packet
	Reason string `json:"reason"`
	Text   string `json:"text"`
	Ban    string `json:"ban,omitempty"`    // the target, where one dropped it
	Filter string `json:"filter,omitempty"` // neighbor and rule, where one of a BGP neighbor dropped it
}

// Logged is one packet of a rule with log:, or of a filter of a BGP neighbor, among those that it samples.
type Logged struct {
	Packet
	Verdict string `json:"verdict"`          // pass, drop; shadow: the rule only counts. Of a filter: its own
	Filter  string `json:"filter,omitempty"` // neighbor and rule, where one wanted it
}

// Packet is what a hook saw of one.
type Packet struct {
	Hook            string     `json:"hook"` // xdp, tcx-ingress, tcx-egress
	Interface       string     `json:"interface"`
	Rule            string     `json:"rule,omitempty"` // policy/name
	Protocol        string     `json:"protocol,omitempty"`
	Source          netip.Addr `json:"source,omitzero"` // none: it is not IP, or could not be read
	Destination     netip.Addr `json:"destination,omitzero"`
	SourcePort      *uint16    `json:"source_port,omitempty"`
	DestinationPort *uint16    `json:"destination_port,omitempty"`
	TCPFlags        string     `json:"tcp_flags,omitempty"` // letters, as explain takes them
	ICMPType        *uint8     `json:"icmp_type,omitempty"`
	Fragment        bool       `json:"fragment,omitempty"` // a later one: its ports are not in it
	VLAN            int        `json:"vlan,omitempty"`
	Length          int        `json:"length"` // bytes of the frame
}

// Monitor calls each for every event, until ctx ends, each returns an error, or the daemon ends (ErrUnreachable).
func (c *Client) Monitor(ctx context.Context, in MonitorRequest, each func(Event) error) error {
	query := url.Values{"drops": {strconv.FormatBool(in.Drops)}, "flows": {strconv.FormatBool(in.Flows)}}
	return follow(ctx, c, http.MethodGet, "monitor?"+query.Encode(), nil, each)
}

// monitor streams events until the client goes or the daemon ends.
func (s *Server) monitor(w http.ResponseWriter, r *http.Request) {
	var in MonitorRequest
	for name, to := range map[string]*bool{"drops": &in.Drops, "flows": &in.Flows} {
		word := r.URL.Query().Get(name)
		if word == "" {
			continue // of a client of another version
		}
		on, err := strconv.ParseBool(word)
		if err != nil {
			s.write(w, nil, &Failure{Message: name + "= is true or false", Refused: true})
			return
		}
		*to = on
	}
	stream(s, w, r, func(ctx context.Context, each func(Event) error) error { return s.backend.Monitor(ctx, in, each) })
}
