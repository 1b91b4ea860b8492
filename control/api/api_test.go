package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/control/config"
	"sluice/control/engine"
)

// calls asks every verb once. Each returns the answer, for comparison, and the error.
var calls = []struct {
	verb string
	call func(context.Context, *Client) (any, error)
	sent string // what the backend must have been asked
	want any
}{
	{"plan", func(ctx context.Context, c *Client) (any, error) {
		return c.Plan(ctx, Candidate{"e.yaml", []byte("a: b\x00\xff"), []File{{"x", []byte("y")}}})
	}, `plan e.yaml "a: b\x00\xff" [{x [121]}]`, plan},
	{"apply", func(ctx context.Context, c *Client) (any, error) {
		return c.Apply(ctx, ApplyRequest{Candidate{"e.yaml", []byte("a"), nil}, 1.5, "why", "ann"})
	}, `apply e.yaml "a" [] 1.5 "why" "ann"`, result},
	{"confirm", func(ctx context.Context, c *Client) (any, error) { return c.Confirm(ctx) }, "confirm", Confirmed{4}},
	{"rollback", func(ctx context.Context, c *Client) (any, error) {
		return c.Rollback(ctx, RollbackRequest{2, 60, "why", "ann"})
	}, `rollback 2 60 "why" "ann"`, result},
	{"history", func(ctx context.Context, c *Client) (any, error) { return c.History(ctx) }, "history", []engine.Meta{meta}},
	{"config", func(ctx context.Context, c *Client) (any, error) { return c.Config(ctx, 3) }, "config 3",
		StoredConfig{meta, []byte("node: {}\n"), []File{{"bogons", []byte("10.0.0.0/8\n")}}}},
	{"config of the live one", func(ctx context.Context, c *Client) (any, error) { return c.Config(ctx, 0) }, "config 0",
		StoredConfig{meta, []byte("node: {}\n"), []File{{"bogons", []byte("10.0.0.0/8\n")}}}},
	{"show", func(ctx context.Context, c *Client) (any, error) { return Show[[]Set](ctx, c, "sets") }, "show sets", []Set{{Name: "sets", Prefixes: 2, IPv4: 1, IPv6: 1, Files: []string{"f"}}}},
	{"show raw", func(ctx context.Context, c *Client) (any, error) {
		raw, err := Show[json.RawMessage](ctx, c, "sets")
		return string(raw), err
	}, "show sets", `[{"name":"sets","prefixes":2,"ipv4":1,"ipv6":1,"files":["f"],"watched":false}]`},
	{"explain", func(ctx context.Context, c *Client) (any, error) {
		return c.Explain(ctx, ExplainRequest{"eth0", "icmp 192.0.2.1 > 192.0.2.2", true})
	}, `explain eth0 "icmp 192.0.2.1 > 192.0.2.2" true`,
		Explanation{Packet: "icmp 192.0.2.1 > 192.0.2.2", Hooks: []HookAnswer{{Hook: "xdp", Line: 7}}}},
	{"ban", func(ctx context.Context, c *Client) (any, error) {
		return c.Ban(ctx, BanRequest{[]string{"192.0.2.7", "2001:db8::/32"}, 600, "why", "ann", true})
	}, `ban ["192.0.2.7" "2001:db8::/32"] for 600s "why" by "ann" force true`, []Ban{{Target: "192.0.2.7", Why: "why"}}},
	{"unban", func(ctx context.Context, c *Client) (any, error) {
		return c.Unban(ctx, UnbanRequest{Targets: []string{"192.0.2.7"}})
	}, `unban ["192.0.2.7"] all false`, []Ban{}},
	{"drain", func(ctx context.Context, c *Client) (any, error) {
		return c.Drain(ctx, DrainRequest{WaitSeconds: 30, By: "ann"})
	}, `drain after 30s by "ann"`, Drain{State: DrainDone, By: "ann"}},
	{"undrain", func(ctx context.Context, c *Client) (any, error) { return c.Undrain(ctx) }, "undrain", Drain{State: DrainNone}},
	{"flows", func(ctx context.Context, c *Client) (any, error) {
		return c.Flows(ctx, FlowsRequest{FlowFilter: FlowFilter{Address: "10.0.0.0/8", Port: 443, Protocol: "tcp", State: "new", Workload: "w", Rule: "ingress/r", Translated: true}, Limit: 5})
	}, `flows {FlowFilter:{Address:10.0.0.0/8 Port:443 Protocol:tcp State:new Workload:w Rule:ingress/r Translated:true} Limit:5 Count:false}`,
		Flows{Total: 7, States: map[string]int{"new": 7}, Flows: []Flow{{Protocol: "tcp"}}}},
	{"neighbor", func(ctx context.Context, c *Client) (any, error) {
		return c.Neighbor(ctx, NeighborRequest{Name: "tor-a", Table: "received", Limit: 5})
	}, `neighbor {Name:tor-a Table:received Limit:5}`, NeighborDetail{Neighbor: Neighbor{Name: "tor-a"}, Table: "received", Total: 7}},
	{"routes", func(ctx context.Context, c *Client) (any, error) {
		return c.Routes(ctx, RoutesRequest{About: "192.0.2.0/24", Limit: 5, Count: true})
	}, `routes {About:192.0.2.0/24 Limit:5 Count:true}`, Routes{Total: 7, Absent: 1, Routes: []Route{}}},
	{"bans", func(ctx context.Context, c *Client) (any, error) {
		return c.Bans(ctx, BansRequest{About: "192.0.2.0/24", By: "ann", Why: "ssh", Limit: 5, Count: true})
	}, `bans {About:192.0.2.0/24 By:ann Why:ssh Limit:5 Count:true}`, Bans{Total: 7, Bans: []Ban{}}},
	{"filters", func(ctx context.Context, c *Client) (any, error) {
		return c.Filters(ctx, FiltersRequest{Neighbor: "tor-a", Limit: 5, Count: true})
	}, `filters {Neighbor:tor-a Limit:5 Count:true}`, Filters{Total: 7, Refused: 1, Filters: []Filter{}}},
	{"clear bgp", func(ctx context.Context, c *Client) (any, error) {
		return c.ClearBGP(ctx, ClearBGPRequest{Neighbor: "tor-a", Soft: true})
	}, `clear bgp {Neighbor:tor-a Soft:true}`, BGPCleared{Neighbor: "tor-a", Soft: true}},
	{"rotate", func(ctx context.Context, c *Client) (any, error) {
		return c.RotateKey(ctx, RotateRequest{Tunnel: "fra1", Stage: true})
	}, `rotate {Tunnel:fra1 Stage:true Forget:false}`, Rotated{Tunnel: "fra1", Staged: true, Peers: []RotatedPeer{{Name: "a", Epoch: 7}}}},
	{"restart", func(ctx context.Context, c *Client) (any, error) {
		return c.RestartTunnel(ctx, RestartRequest{Tunnel: "fra1"})
	}, `restart fra1`, Restarted{Before: Process{PID: 7}, Now: Process{Tunnels: []string{"fra1"}, PID: 8, Version: "v"}}},
	{"check", func(ctx context.Context, c *Client) (any, error) {
		return c.Check(ctx, CheckRequest{Established: []string{"tor-a"}})
	}, `check {Established:[tor-a]}`, Checked{Failing: []engine.Failure{{Check: "neighbors: keep", Message: "tor-a"}}}},
	{"clear flows", func(ctx context.Context, c *Client) (any, error) {
		return c.ClearFlows(ctx, ClearFlowsRequest{All: true})
	},
		`clear flows {FlowFilter:{Address: Port:0 Protocol: State: Workload: Rule: Translated:false} All:true}`, FlowsCleared{Flows: 3}},
	{"clear counters", func(ctx context.Context, c *Client) (any, error) {
		return c.ClearCounters(ctx, ClearCountersRequest{Policy: "ingress"})
	}, `clear counters "ingress"`, Cleared{Policies: []string{"ingress"}, Rules: 2}},
	{"down", func(ctx context.Context, c *Client) (any, error) { return nil, c.Down(ctx) }, "down", nil},
}

func TestEveryVerbMakesTheRoundTrip(t *testing.T) {
	for _, c := range calls {
		t.Run(c.verb, func(t *testing.T) {
			b := &fake{}
			got, err := c.call(t.Context(), start(t, b).client)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreUnexported(engine.Step{}, engine.Plan{}), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if !slices.Equal(b.asked, []string{c.sent}) {
				t.Errorf("the backend was asked %q, want %q", b.asked, c.sent)
			}
		})
	}
}

func TestAnErrorOfTheBackendComesBackInItsWords(t *testing.T) {
	for _, fault := range []struct {
		name string
		err  error
		want Failure
	}{
		{"refused", fmt.Errorf("wrapped: %w", &Failure{Message: "line one\nline <two>", Refused: true, Problems: []Problem{{File: "f", Line: 7, Message: "m"}}}),
			Failure{Message: "line one\nline <two>", Refused: true, Problems: []Problem{{File: "f", Line: 7, Message: "m"}}}},
		{"from inside", errors.New("the disk is full"), Failure{Message: "the disk is full"}},
	} {
		for _, c := range calls {
			t.Run(fault.name+"/"+c.verb, func(t *testing.T) {
				_, err := c.call(t.Context(), start(t, &fake{fail: fault.err}).client)
				var f *Failure
				if !errors.As(err, &f) || !cmp.Equal(*f, fault.want) || errors.Is(err, ErrUnreachable) {
					t.Errorf("got %#v, want %#v", err, fault.want)
				}
			})
		}
	}
}

func TestBadRequestsAreRefusedBeforeTheBackendIsAsked(t *testing.T) {
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "plan", `{"name": "x", "bites": "AA=="}`, `the request is not understood: json: unknown field "bites"`},
		{"POST", "apply", `{"confirm_seconds": "2m"}`, "the request is not understood: json: cannot unmarshal string into Go struct field ApplyRequest.confirm_seconds of type float64"},
		{"POST", "down", ``, "the request is not understood: EOF"},
		{"POST", "confirm", `{`, "the request is not understood: unexpected EOF"},
		{"POST", "plan", `{"name": "` + strings.Repeat("x", 3<<20) + `"}`, "the request is larger than 2 MiB"},
		{"GET", "config/first", ``, "a revision is a number"},
	} {
		t.Run(c.path+" "+c.body[:min(20, len(c.body))], func(t *testing.T) {
			b := &fake{}
			r := start(t, b, func(s *Server) { s.maxBody = 2 << 20 })
			status, body := raw(t, r, c.method, c.path, c.body)
			var f Failure
			if err := json.Unmarshal([]byte(body), &f); err != nil || !cmp.Equal(f, Failure{Message: c.want, Refused: true}) || status != http.StatusUnprocessableEntity {
				t.Errorf("status %d, body %s; want %q", status, body, c.want)
			}
			if len(b.asked) != 0 {
				t.Errorf("the backend was asked %q", b.asked)
			}
		})
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	r := start(t, &fake{})
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "nothing", http.StatusNotFound}, {"GET", "apply", http.StatusMethodNotAllowed}, {"POST", "show/status", http.StatusMethodNotAllowed},
	} {
		if status, _ := raw(t, r, c.method, c.path, "{}"); status != c.want {
			t.Errorf("%s %s: status %d, want %d", c.method, c.path, status, c.want)
		}
	}
	// A client of a later version says so rather than printing HTML or nothing.
	if _, err := Show[Status](t.Context(), r.client, "a/b"); err == nil || err.Error() != "the daemon answered 404 Not Found" {
		t.Errorf("error %v", err)
	}
}

// raw sends a request past the client.
func raw(t *testing.T, r *running, method, path, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://sluice/v1/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := r.client.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if ct := response.Header.Get("Content-Type"); response.StatusCode < 400 && ct != "application/json" {
		t.Errorf("content type %q", ct)
	}
	return response.StatusCode, string(text)
}

func TestAnUnreachableDaemon(t *testing.T) {
	dir := t.TempDir()
	deaf, mute := filepath.Join(dir, "deaf"), filepath.Join(dir, "mute")
	l, err := net.Listen("unix", deaf)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = net.Listen("unix", mute); err != nil { // takes a request and hangs up
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
		}
	}()
	none := filepath.Join(dir, "none")
	for _, c := range []struct{ path, want string }{
		{none, "could not reach the daemon on " + none + ": it is not running, or has another --socket"},
		{deaf, "could not reach the daemon on " + deaf + ": it is not running, or has another --socket"},
		{mute, "could not reach the daemon on " + mute + ": it ended before it answered"},
	} {
		_, err := NewClient(c.path).Confirm(t.Context())
		if !errors.Is(err, ErrUnreachable) || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestAnAnswerThatBreaksOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	for answer, want := range map[string]string{
		`{"revision": `:     "could not reach the daemon on " + path + ": it ended before it answered",
		`{"revision": "x"}`: "the daemon's answer is not understood (is it of another version?): json: cannot unmarshal string into Go struct field Confirmed.revision of type int",
	} {
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Read(make([]byte, 4096))
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", answer)
		}()
		if _, err := NewClient(path).Confirm(t.Context()); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	_ = l.Close()
}

func TestACallEndsWithItsContext(t *testing.T) {
	b := &fake{hold: make(chan struct{}), enter: make(chan struct{})}
	r := start(t, b)
	defer close(b.hold)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-b.enter; cancel() }()
	if err := r.client.Down(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v, want that of the context", err)
	}
}

func TestTheSocketIsForRootAlone(t *testing.T) {
	r := start(t, &fake{})
	info, err := os.Lstat(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket of 0600", info.Mode())
	}
}

func TestProblemsOfAFile(t *testing.T) {
	list := config.Errors{
		{Pos: config.Pos{File: "e.yaml", Line: 3, Column: 5}, Path: "node.name", Msg: "wrong", Hint: "write it right"},
		{Pos: config.Pos{File: "e.yaml"}, Msg: "and 7 more"},
	}
	got := Problems(fmt.Errorf("collecting facts: %w", list))
	want := []Problem{{"e.yaml", 3, 5, "node.name", "wrong", "write it right"}, {File: "e.yaml", Message: "and 7 more"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if got := Problems(&Failure{Problems: want}); !cmp.Equal(got, want) {
		t.Errorf("those that the daemon found: %v", got)
	}
	for i, text := range []string{"e.yaml:3:5: node.name: wrong; write it right", "e.yaml: and 7 more"} {
		if got[i].String() != text {
			t.Errorf("got %q, want %q", got[i], text)
		}
	}
	for _, err := range []error{nil, errors.New("x"), &Failure{Message: "x"}} {
		if got := Problems(err); got != nil {
			t.Errorf("%v has problems: %v", err, got)
		}
	}
}

// TestContentsOfFilesTravelAsTheyAre and are counted: what is not what the header says is refused.
func TestContentsOfFilesTravelAsTheyAre(t *testing.T) {
	sent := ApplyRequest{Candidate: Candidate{"e.yaml", []byte("a: \x00\xff{"), []File{{"x", nil}, {"y", []byte("}")}}}, Message: "why"}
	head := `{"candidate":{"name":"e.yaml","bytes":null,"files":[{"path":"x","contents":null},{"path":"y","contents":null}]},"message":"why"}`
	for _, c := range []struct{ lengths, tail, wrong string }{
		{"6,0,1", "a: \x00\xff{}", ""},
		{"6,0,2", "a: \x00\xff{}", "unexpected EOF"},
		{"6,1", "a: \x00\xff{}", "not the lengths of its files"},
		{"6,-1,1", "a: \x00\xff{}", "-1 is not a length"},
		{"6,0,1025", "a: \x00\xff{}", "1025 is not a length"},
	} {
		var got ApplyRequest
		d := json.NewDecoder(strings.NewReader(head + c.tail))
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		err := readContents(c.lengths, 1024, d.Buffered(), &got)
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%s: %v, want %s", c.lengths, err, c.wrong)
			}
			continue
		}
		if err != nil || fmt.Sprintf("%v", got) != fmt.Sprintf("%v", sent) {
			t.Errorf("%v, want %v (%v)", got, sent, err)
		}
	}
	if err := readContents("1", 1024, strings.NewReader("x"), &struct{}{}); err == nil {
		t.Error("a request without files took contents")
	}
}

// TestPeersAreCountedByTheirStates: those that are down are named first, and no more than an operator reads.
func TestPeersAreCountedByTheirStates(t *testing.T) {
	if got := CountTunnels(nil); got != nil {
		t.Errorf("without tunnels: %+v", got)
	}
	peer := func(name string, state PeerState) TunnelPeer {
		return TunnelPeer{Name: name, State: state, Why: name + " is " + string(state)}
	}
	list := []Tunnel{
		{Name: "a", Peers: []TunnelPeer{peer("1", PeerConnecting), peer("2", PeerUp), peer("3", PeerUnknown)}},
		{Name: "b", Why: "its device does not run", Peers: []TunnelPeer{peer("1", PeerDown)}},
	}
	for range 2 * MaxTroubles {
		list[0].Peers = append(list[0].Peers, peer("9", PeerConnecting))
	}
	got := CountTunnels(list)
	if got.Up != 1 || got.Down != 1 || got.Connecting != 1+2*MaxTroubles || got.Unknown != 1 || len(got.Troubles) != MaxTroubles {
		t.Errorf("counted %+v", got)
	}
	for i, want := range []TunnelTrouble{{"b", "1", PeerDown, "its device does not run"}, {"a", "1", PeerConnecting, "1 is connecting"}} {
		if got.Troubles[i] != want {
			t.Errorf("trouble %d is %+v", i, got.Troubles[i])
		}
	}
}
