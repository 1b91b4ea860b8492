package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	for _, s := range settings { // those of whoever runs the tests
		os.Unsetenv("SLUICE_" + strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_")))
	}
	time.Local = time.UTC // history prints local time
	os.Exit(m.Run())
}

// noon is when the tests take place.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func sluiceNow() time.Time { return noon }

// outcome is all that a command left.
type outcome struct {
	code     int
	out, err string
}

// sluice runs the command in this process.
func sluice(t *testing.T, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	c := newCLI(&out, &errs)
	c.now = sluiceNow
	code := c.run(t.Context(), args)
	return outcome{code, out.String(), errs.String()}
}

// is holds an outcome against another.
func (o outcome) is(t *testing.T, want outcome) {
	t.Helper()
	if diff := cmp.Diff(want, o, cmp.AllowUnexported(outcome{})); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
}

// done is an outcome of success, with its output.
func done(out string) outcome { return outcome{out: out} }

// write puts a file into the test's own directory and returns its path.
func write(t *testing.T, name, contents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := writeFile(path, contents); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeFile(path, contents string) error { return os.WriteFile(path, []byte(contents), 0o600) }

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// box is a daemon that does nothing but answer.
type box struct {
	changes []api.WorkloadChange
	asked   []string
	fail    error
	plan    api.Plan
	result  api.Result
	stored  api.StoredConfig
	history []api.Revision
	explain api.Explanation
	rotated api.Rotated
	bans    []api.Ban
	checked api.Checked
	drain   api.Drain   // what Undrain ends
	shown   any         // what Show answers, where it is not what lies in testdata
	events  []api.Event // what Monitor tells; then the daemon ends, and the next one refuses

	monitored bool
	frames    []api.Frame // what Capture tells; then it waits for its end, or where dies is set the daemon ends
	dies      bool
	ended     chan struct{} // closed by EndCapture
}

// noting is for every box: some are copied.
var noting sync.Mutex

func (b *box) note(format string, args ...any) error {
	noting.Lock()
	defer noting.Unlock()
	b.asked = append(b.asked, fmt.Sprintf(format, args...))
	return b.fail
}

// askedToDo is what the daemon was asked, but for how it is: that is asked each second while a verb waits.
func (b *box) askedToDo() []string {
	noting.Lock()
	defer noting.Unlock()
	return slices.DeleteFunc(slices.Clone(b.asked), func(s string) bool { return s == "show status" })
}

func (b *box) Plan(_ context.Context, c api.Candidate) (api.Plan, error) {
	return b.plan, b.note("plan %s %q %d files", filepath.Base(c.Name), c.Bytes, len(c.Files))
}

func (b *box) Apply(_ context.Context, r api.ApplyRequest) (api.Result, error) {
	return b.result, b.note("apply %s %q confirm %gs message %q author %q", filepath.Base(r.Candidate.Name), r.Candidate.Bytes, r.ConfirmSeconds, r.Message, r.Author)
}

func (b *box) Confirm(context.Context) (api.Confirmed, error) {
	return api.Confirmed{Revision: 4}, b.note("confirm")
}

func (b *box) Rollback(_ context.Context, r api.RollbackRequest) (api.Result, error) {
	return b.result, b.note("rollback %d confirm %gs message %q author %q", r.Revision, r.ConfirmSeconds, r.Message, r.Author)
}

func (b *box) History(context.Context) ([]api.Revision, error) { return b.history, b.note("history") }

func (b *box) Config(_ context.Context, n int) (api.StoredConfig, error) {
	return b.stored, b.note("config %d", n)
}

// Show answers from testdata/show.
func (b *box) Show(_ context.Context, noun string) (any, error) {
	if err := b.note("show %s", noun); err != nil {
		return nil, err
	}
	if b.shown != nil {
		return b.shown, nil
	}
	raw, err := os.ReadFile("testdata/show/" + noun + ".json")
	return json.RawMessage(raw), err
}

func (b *box) Explain(_ context.Context, r api.ExplainRequest) (api.Explanation, error) {
	return b.explain, b.note("explain %s %q egress=%v", r.Interface, r.Packet, r.Egress)
}

func (b *box) Ban(_ context.Context, r api.BanRequest) ([]api.Ban, error) {
	return b.bans, b.note("ban %q for %gs why %q by %q force=%v", r.Targets, r.ForSeconds, r.Why, r.By, r.Force)
}

func (b *box) Unban(_ context.Context, r api.UnbanRequest) ([]api.Ban, error) {
	return b.bans, b.note("unban %q all=%v", r.Targets, r.All)
}

func (b *box) Drain(_ context.Context, r api.DrainRequest) (api.Drain, error) {
	return api.Drain{State: api.DrainDone}, b.note("drain after %gs by %q", r.WaitSeconds, r.By)
}

func (b *box) Undrain(context.Context) (api.Drain, error) { return b.drain, b.note("undrain") }

func (b *box) AddWorkloads(_ context.Context, r api.WorkloadAdd) ([]api.WorkloadChange, error) {
	for i := range r.Workloads {
		r.Workloads[i].PolicyFile = filepath.Base(r.Workloads[i].PolicyFile) // a temporary one
	}
	return b.changes, b.note("add %+v", r.Workloads)
}

func (b *box) DeleteWorkloads(_ context.Context, r api.WorkloadDelete) ([]api.WorkloadChange, error) {
	return b.changes, b.note("delete %q", r.Names)
}

func (b *box) ClearCounters(_ context.Context, r api.ClearCountersRequest) (api.Cleared, error) {
	return api.Cleared{Policies: []string{"ingress", "egress"}, Rules: 7}, b.note("clear counters %q", r.Policy)
}

// Flows answers from testdata/show, and is asked for the noun where it is asked as that alone would.
func (b *box) Flows(ctx context.Context, r api.FlowsRequest) (api.Flows, error) {
	if r != (api.FlowsRequest{Limit: api.DefaultFlows}) {
		if err := b.note("flows %+v", r); err != nil {
			return api.Flows{}, err
		}
	} else if err := b.note("show flows"); err != nil {
		return api.Flows{}, err
	}
	var all api.Flows
	err := fixture("flows", &all)
	if r.Count {
		all.Flows = []api.Flow{}
	}
	return all, err
}

// Routes answers from testdata/show, as Flows does.
func (b *box) Routes(_ context.Context, r api.RoutesRequest) (all api.Routes, err error) {
	asked := fmt.Sprintf("routes %+v", r)
	if r == (api.RoutesRequest{Limit: api.DefaultPaths}) {
		asked = "show routes"
	}
	if err := b.note("%s", asked); err != nil {
		return all, err
	}
	err = fixture("routes", &all)
	if r.Count {
		all.Routes = []api.Route{}
	}
	return all, err
}

// Bans answers from testdata/show, as Flows does.
func (b *box) Bans(_ context.Context, r api.BansRequest) (all api.Bans, err error) {
	asked := fmt.Sprintf("bans %+v", r)
	if r == (api.BansRequest{Limit: api.DefaultBans}) {
		asked = "show bans"
	}
	if err = b.note("%s", asked); err == nil {
		err = fixture("bans", &all)
	}
	if r.Count {
		all.Bans = []api.Ban{}
	}
	return all, err
}

// Filters answers as Bans does.
func (b *box) Filters(_ context.Context, r api.FiltersRequest) (all api.Filters, err error) {
	asked := fmt.Sprintf("filters %+v", r)
	if r == (api.FiltersRequest{Limit: api.DefaultFilters}) {
		asked = "show flowspec"
	}
	if err = b.note("%s", asked); err == nil {
		err = fixture("flowspec", &all)
	}
	all.Filters = all.Filters[:min(r.Limit, len(all.Filters))]
	if r.Count {
		all.Filters = []api.Filter{}
	}
	return all, err
}

// fixture reads what lies in testdata/show.
func fixture(noun string, into any) error {
	raw, err := os.ReadFile("testdata/show/" + noun + ".json")
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

func (b *box) ClearFlows(_ context.Context, r api.ClearFlowsRequest) (api.FlowsCleared, error) {
	return api.FlowsCleared{Flows: 12}, b.note("clear flows %+v", r)
}

func (b *box) Neighbor(_ context.Context, r api.NeighborRequest) (api.NeighborDetail, error) {
	out := api.NeighborDetail{Table: r.Table}
	if err := b.note("neighbor %+v", r); err != nil {
		return out, err
	}
	raw, err := os.ReadFile("testdata/neighbor.json")
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	return out, err
}

func (b *box) ClearBGP(_ context.Context, r api.ClearBGPRequest) (api.BGPCleared, error) {
	return api.BGPCleared(r), b.note("clear bgp %+v", r)
}

func (b *box) RotateKey(_ context.Context, r api.RotateRequest) (api.Rotated, error) {
	return b.rotated, b.note("rotate %+v", r)
}

func (b *box) RestartTunnel(_ context.Context, r api.RestartRequest) (api.Restarted, error) {
	before := api.Process{Tunnels: []string{r.Tunnel}, PID: 4711, Version: "v1.4"}
	now := api.Process{Tunnels: []string{r.Tunnel}, PID: 4812, Version: "v1.5"}
	if r.Tunnel == "dead" {
		before = api.Process{}
	}
	return api.Restarted{Before: before, Now: now}, b.note("restart %s", r.Tunnel)
}

func (b *box) Check(_ context.Context, r api.CheckRequest) (api.Checked, error) {
	return b.checked, b.note("check %+v", r)
}

func (b *box) Monitor(_ context.Context, r api.MonitorRequest, each func(api.Event) error) error {
	if b.monitored = !b.monitored; !b.monitored {
		return &api.Failure{Message: "enough", Refused: true}
	}
	for _, e := range b.events {
		if err := each(e); err != nil {
			return err
		}
	}
	return b.note("monitor drops=%v flows=%v", r.Drops, r.Flows)
}

// Capture takes a request without its By, which is another one in every process.
func (b *box) Capture(ctx context.Context, r api.CaptureRequest, each func(api.CaptureEvent) error) error {
	r.By, _, _ = strings.Cut(r.By, " ")
	if err := b.note("capture %+v", r); err != nil {
		return err
	}
	b.ended = make(chan struct{})
	if err := each(api.CaptureEvent{Type: api.CaptureBegin, ID: 7}); err != nil {
		return err
	}
	for _, f := range b.frames {
		if err := each(api.CaptureEvent{Type: api.CaptureFrame, Frame: &f}); err != nil {
			return err
		}
	}
	if b.dies {
		return nil
	}
	select {
	case <-b.ended:
	case <-ctx.Done():
		return nil
	}
	return each(api.CaptureEvent{Type: api.CaptureEnded, Count: &api.CaptureCount{Wanted: 100, Suppressed: 5, Lost: 6}})
}

func (b *box) EndCapture(_ context.Context, r api.CaptureEnd) error {
	if r.ID != 7 {
		return fmt.Errorf("capture %d", r.ID)
	}
	close(b.ended)
	return nil
}

func (b *box) Down(context.Context) error { return b.note("down") }

// daemonOf serves b until the test ends; SLUICE_SOCKET leads to it.
func daemonOf(t *testing.T, b *box) *box {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	t.Setenv("SLUICE_SOCKET", path)
	t.Setenv("SUDO_USER", "ann")
	server := api.NewServer(path, b, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-server.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return b
}

// minimal is a file that is good, and what its bytes are.
const minimal = "interfaces: [{name: eth0, role: uplink}]\n"

var somePlan = api.Plan{Revision: 3, Warnings: []string{"a rule is never reached"}, Steps: []api.Step{
	{Subsystem: "host", Op: "add address 198.18.0.2/30 to eth0", Why: "apply"},
	{Subsystem: "bgp", Op: "withdraw 203.0.113.0/24", Teardown: true, Why: "apply"},
}}
