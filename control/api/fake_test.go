package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"sluice/control/engine"
)

var discard = slog.New(slog.DiscardHandler)

// fake is a Backend that remembers what it was asked and answers what it was told.
type fake struct {
	asked []string      // one line per request
	fail  error         // of every request, where set
	hold  chan struct{} // where set, Down waits for it
	enter chan struct{} // closed once Down waits

	events chan Event // what Monitor tells

	frames     chan CaptureEvent // what Capture tells
	endCapture chan struct{}     // closed by EndCapture
	gone       chan struct{}     // closed when Capture's client has gone
}

func (f *fake) note(format string, args ...any) error {
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
	return f.fail
}

var (
	plan   = engine.Plan{Revision: 3, Steps: []engine.Step{{Subsystem: "xdp", Op: "load", Why: "apply"}}, Warnings: []string{"w"}}
	result = engine.Result{Revision: 4, Plan: plan, Pending: &engine.PendingStatus{Revision: 4, Base: 3, Remaining: 119.5, Confirm: true}}
	meta   = engine.Meta{Number: 3, Author: "ann", Message: "why", Status: engine.Confirmed, Time: time.Unix(1700000000, 0).UTC()}
)

func (f *fake) Plan(_ context.Context, c Candidate) (engine.Plan, error) {
	return plan, f.note("plan %s %q %v", c.Name, c.Bytes, c.Files)
}

func (f *fake) Apply(_ context.Context, r ApplyRequest) (engine.Result, error) {
	return result, f.note("apply %s %q %v %g %q %q", r.Candidate.Name, r.Candidate.Bytes, r.Candidate.Files, r.ConfirmSeconds, r.Message, r.Author)
}

func (f *fake) Confirm(context.Context) (Confirmed, error) { return Confirmed{4}, f.note("confirm") }

func (f *fake) Rollback(_ context.Context, r RollbackRequest) (engine.Result, error) {
	return result, f.note("rollback %d %g %q %q", r.Revision, r.ConfirmSeconds, r.Message, r.Author)
}

func (f *fake) History(context.Context) ([]engine.Meta, error) {
	return []engine.Meta{meta}, f.note("history")
}

func (f *fake) Config(_ context.Context, revision int) (StoredConfig, error) {
	return StoredConfig{Meta: meta, Bytes: []byte("node: {}\n"), Files: []File{{"bogons", []byte("10.0.0.0/8\n")}}}, f.note("config %d", revision)
}

func (f *fake) Show(_ context.Context, noun string) (any, error) {
	return []Set{{Name: noun, Prefixes: 2, IPv4: 1, IPv6: 1, Files: []string{"f"}}}, f.note("show %s", noun)
}

func (f *fake) Explain(_ context.Context, r ExplainRequest) (Explanation, error) {
	return Explanation{Packet: r.Packet, Hooks: []HookAnswer{{Hook: "xdp", Line: 7}}}, f.note("explain %s %q %v", r.Interface, r.Packet, r.Egress)
}

func (f *fake) Ban(_ context.Context, r BanRequest) ([]Ban, error) {
	return []Ban{{Target: r.Targets[0], Why: r.Why}}, f.note("ban %q for %gs %q by %q force %v", r.Targets, r.ForSeconds, r.Why, r.By, r.Force)
}

func (f *fake) Unban(_ context.Context, r UnbanRequest) ([]Ban, error) {
	return []Ban{}, f.note("unban %q all %v", r.Targets, r.All)
}

func (f *fake) Drain(_ context.Context, r DrainRequest) (Drain, error) {
	return Drain{State: DrainDone, By: r.By}, f.note("drain after %gs by %q", r.WaitSeconds, r.By)
}

func (f *fake) Undrain(context.Context) (Drain, error) {
	return Drain{State: DrainNone}, f.note("undrain")
}

func (f *fake) AddWorkloads(_ context.Context, r WorkloadAdd) ([]WorkloadChange, error) {
	return []WorkloadChange{{Name: r.Workloads[0].Name, Change: "added", State: WorkloadWaiting}}, f.note("add workloads %+v", r.Workloads)
}

func (f *fake) DeleteWorkloads(_ context.Context, r WorkloadDelete) ([]WorkloadChange, error) {
	return []WorkloadChange{{Name: r.Names[0], Change: "removed"}}, f.note("delete workloads %q", r.Names)
}

func (f *fake) ClearCounters(_ context.Context, r ClearCountersRequest) (Cleared, error) {
	return Cleared{Policies: []string{"ingress"}, Rules: 2}, f.note("clear counters %q", r.Policy)
}

func (f *fake) Flows(_ context.Context, r FlowsRequest) (Flows, error) {
	return Flows{Total: 7, States: map[string]int{"new": 7}, Flows: []Flow{{Protocol: r.Protocol}}}, f.note("flows %+v", r)
}

func (f *fake) ClearFlows(_ context.Context, r ClearFlowsRequest) (FlowsCleared, error) {
	return FlowsCleared{Flows: 3}, f.note("clear flows %+v", r)
}

func (f *fake) Routes(_ context.Context, r RoutesRequest) (Routes, error) {
	return Routes{Total: 7, Absent: 1, Routes: []Route{}}, f.note("routes %+v", r)
}

func (f *fake) Bans(_ context.Context, r BansRequest) (Bans, error) {
	return Bans{Total: 7, Bans: []Ban{}}, f.note("bans %+v", r)
}

func (f *fake) Filters(_ context.Context, r FiltersRequest) (Filters, error) {
	return Filters{Total: 7, Refused: 1, Filters: []Filter{}}, f.note("filters %+v", r)
}

func (f *fake) Neighbor(_ context.Context, r NeighborRequest) (NeighborDetail, error) {
	return NeighborDetail{Neighbor: Neighbor{Name: r.Name}, Table: r.Table, Total: 7}, f.note("neighbor %+v", r)
}

func (f *fake) ClearBGP(_ context.Context, r ClearBGPRequest) (BGPCleared, error) {
	return BGPCleared(r), f.note("clear bgp %+v", r)
}

func (f *fake) RotateKey(_ context.Context, r RotateRequest) (Rotated, error) {
	return Rotated{Tunnel: r.Tunnel, Staged: r.Stage, Peers: []RotatedPeer{{Name: "a", Epoch: 7}}}, f.note("rotate %+v", r)
}

func (f *fake) RestartTunnel(_ context.Context, r RestartRequest) (Restarted, error) {
	return Restarted{Before: Process{PID: 7}, Now: Process{Tunnels: []string{r.Tunnel}, PID: 8, Version: "v"}}, f.note("restart %s", r.Tunnel)
}

func (f *fake) Check(_ context.Context, r CheckRequest) (Checked, error) {
	return Checked{Failing: []engine.Failure{{Check: "neighbors: keep", Message: r.Established[0]}}}, f.note("check %+v", r)
}

// Monitor tells of a begin and of what is in events, until they are closed.
func (f *fake) Monitor(ctx context.Context, r MonitorRequest, each func(Event) error) error {
	if err := f.note("monitor %+v", r); err != nil {
		return err
	}
	if err := each(Event{Type: EventBegin}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-f.events:
			if !open {
				return f.fail
			}
			if err := each(e); err != nil {
				return err
			}
		}
	}
}

// Capture tells of a begin and of what is in frames, until ctx ends or EndCapture is called.
func (f *fake) Capture(ctx context.Context, r CaptureRequest, each func(CaptureEvent) error) error {
	if err := f.note("capture %+v", r); err != nil {
		return err
	}
	if err := each(CaptureEvent{Type: CaptureBegin, ID: 7}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			close(f.gone)
			return nil
		case e := <-f.frames:
			if err := each(e); err != nil {
				return err
			}
		case <-f.endCapture:
			return each(CaptureEvent{Type: CaptureEnded, Count: &CaptureCount{Wanted: 3}})
		}
	}
}

func (f *fake) EndCapture(_ context.Context, r CaptureEnd) error {
	defer close(f.endCapture)
	return f.note("end capture %d", r.ID)
}

func (f *fake) Down(context.Context) error {
	err := f.note("down")
	if f.hold != nil {
		close(f.enter)
		<-f.hold
	}
	return err
}

// running is a server that answers, and the way to end it.
type running struct {
	path   string
	server *Server
	client *Client
	stop   context.CancelFunc
	ended  chan error
}

// start runs a server until the test ends, and waits until it answers.
func start(t *testing.T, b Backend, change ...func(*Server)) *running {
	t.Helper()
	r := &running{path: filepath.Join(t.TempDir(), "sub", "s"), ended: make(chan error, 1)}
	r.server = NewServer(r.path, b, discard)
	for _, c := range change {
		c(r.server)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- r.server.Run(ctx) }()
	select {
	case <-r.server.Ready():
	case err := <-r.ended:
		t.Fatalf("the server did not start: %v", err)
	}
	r.client = NewClient(r.path)
	t.Cleanup(func() {
		r.client.Close()
		stop()
	})
	return r
}

// end stops the server and returns what Run said.
func (r *running) end(t *testing.T) error {
	t.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the server does not end")
		return nil
	}
}

// startError returns why a server at path does not start.
func startError(t *testing.T, path string) error {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	s := NewServer(path, &fake{}, discard)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-s.Ready():
		return errors.New("it started")
	}
}
