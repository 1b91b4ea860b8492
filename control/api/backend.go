package api

import (
	"context"
	"errors"
)

// Backend is what the API speaks for. The daemon implements it.
type Backend interface {
	Plan(ctx context.Context, c Candidate) (Plan, error)
	Apply(ctx context.Context, r ApplyRequest) (Result, error)
	Confirm(ctx context.Context) (Confirmed, error)
	Rollback(ctx context.Context, r RollbackRequest) (Result, error)
	History(ctx context.Context) ([]Revision, error)
	Config(ctx context.Context, revision int) (StoredConfig, error) // 0: the live one
	Show(ctx context.Context, noun string) (any, error)             // ErrNoSuchNoun
	Explain(ctx context.Context, r ExplainRequest) (Explanation, error)
	Ban(ctx context.Context, r BanRequest) ([]Ban, error)
	Unban(ctx context.Context, r UnbanRequest) ([]Ban, error)
	Bans(ctx context.Context, r BansRequest) (Bans, error)
	Filters(ctx context.Context, r FiltersRequest) (Filters, error)
	Drain(ctx context.Context, r DrainRequest) (Drain, error)
	Undrain(ctx context.Context) (Drain, error)
	AddWorkloads(ctx context.Context, r WorkloadAdd) ([]WorkloadChange, error)
	DeleteWorkloads(ctx context.Context, r WorkloadDelete) ([]WorkloadChange, error)
	ClearCounters(ctx context.Context, r ClearCountersRequest) (Cleared, error)
	Flows(ctx context.Context, r FlowsRequest) (Flows, error)
	ClearFlows(ctx context.Context, r ClearFlowsRequest) (FlowsCleared, error)
	Neighbor(ctx context.Context, r NeighborRequest) (NeighborDetail, error)
	Routes(ctx context.Context, r RoutesRequest) (Routes, error)
	ClearBGP(ctx context.Context, r ClearBGPRequest) (BGPCleared, error)
	RotateKey(ctx context.Context, r RotateRequest) (Rotated, error)
	RestartTunnel(ctx context.Context, r RestartRequest) (Restarted, error)
	Check(ctx context.Context, r CheckRequest) (Checked, error)
	// Monitor calls each, one at a time, until ctx ends, which is no error, or each returns one. The first event comes
	// at once.
	Monitor(ctx context.Context, r MonitorRequest, each func(Event) error) error
	// Capture calls each, one at a time, until ctx ends, EndCapture names it, or each returns an error. The first event
	// comes at once, and the last one says that it ended.
	Capture(ctx context.Context, r CaptureRequest, each func(CaptureEvent) error) error
	EndCapture(ctx context.Context, r CaptureEnd) error
	Down(ctx context.Context) error
}

// ErrNoSuchNoun: show knows no such thing.
var ErrNoSuchNoun = errors.New("nothing of that name to show")

// Nouns are what show knows, with what each is for.
var Nouns = []struct{ Name, Help string }{
	{"status", "revision, pending confirmation, conditions"},
	{"interfaces", "links, roles and how XDP is attached"},
	{"policy", "rules in order with their hits"},
	{"drops", "what was dropped where, and why"},
	{"reasons", "every verdict by reason, passes included"},
	{"sets", "named sets and their sizes"},
	{"workloads", "workloads: where they came from, whether they are attached, traffic"},
	{"flows", "tracked flows: state, age, packets, translation, and the rules that let them in"},
	{"bgp", "sessions"},
	{"routes", "routes learned from neighbors"},
	{"tunnels", "tunnels and their peers: whether they answer, by which endpoint, keys and traffic"},
	{"sockets", "bypass sockets: where programs register, and what did not reach them"},
	{"flowspec", "filters and blackholes of BGP neighbors: actions, age, why not, and what they matched"},
	{"bans", "banned sources: until when, who, why, and what was dropped"},
}

// Failure is the body of an answer that is not 200.
type Failure struct {
	Message string `json:"error"`
	// Refused: the request was understood and the answer is no (exit code 1). Otherwise the fault is inside.
	Refused bool `json:"refused"`
	// Problems are what Message says, where a file is to blame.
	Problems []Problem `json:"problems,omitempty"`
}

func (f *Failure) Error() string { return f.Message }
