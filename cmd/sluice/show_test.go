package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
)

// TestShow holds the text of every noun, made from the JSON in testdata/show, against its golden file beside it.
func TestShow(t *testing.T) {
	for _, n := range api.Nouns {
		t.Run(n.Name, func(t *testing.T) {
			b := daemonOf(t, &box{})
			got := sluice(t, "show", n.Name)
			if got.code != exitDone || got.err != "" {
				t.Fatalf("%+v", got)
			}
			golden(t, "testdata/show/"+n.Name+".golden.txt", got.out)
			for line := range strings.Lines(got.out) {
				if strings.TrimRight(line, "\n ") != strings.TrimRight(line, "\n") {
					t.Errorf("spaces end the line %q", line)
				}
			}
			js := sluice(t, "show", n.Name, "-o", "json")
			var printed, sent any
			raw, err := os.ReadFile("testdata/show/" + n.Name + ".json")
			if err != nil || json.Unmarshal(raw, &sent) != nil || json.Unmarshal([]byte(js.out), &printed) != nil {
				t.Fatalf("-o json: %+v (%v)", js, err)
			}
			if diff := cmp.Diff(sent, printed); diff != "" {
				t.Errorf("-o json differs from what the daemon said:\n%s", diff)
			}
			asked := 2
			if n.Name == "bgp" {
				asked++ // the status, for a drain
			}
			if len(b.asked) != asked || b.asked[0] != "show "+n.Name {
				t.Errorf("the daemon was asked %q", b.asked)
			}
		})
	}
}

// TestTheFixturesAreWhatTheDaemonSays: every name in testdata/show is one of the API's types.
func TestTheFixturesAreWhatTheDaemonSays(t *testing.T) {
	types := map[string]any{
		"status": &api.Status{}, "interfaces": &[]api.Interface{}, "policy": &[]api.Policy{}, "drops": &[]api.Reason{},
		"reasons": &[]api.Reason{}, "sets": &[]api.Set{}, "workloads": &[]api.Workload{}, "flows": &api.Flows{},
		"bgp": &[]api.Neighbor{}, "routes": &api.Routes{}, "tunnels": &api.Tunnels{},
		"bans": &api.Bans{}, "flowspec": &api.Filters{}, "sockets": &[]api.Socket{},
	}
	files, err := filepath.Glob("testdata/show/*.json")
	if err != nil || len(files) != len(api.Nouns) || len(types) != len(api.Nouns) {
		t.Fatalf("%d fixtures and %d types for %d nouns (%v)", len(files), len(types), len(api.Nouns), err)
	}
	for noun, v := range types {
		raw, err := os.ReadFile("testdata/show/" + noun + ".json")
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(v); err != nil {
			t.Errorf("%s: %v", noun, err)
		}
	}
}

func TestStatusOfAQuietBox(t *testing.T) {
	show := func(s api.Status) string {
		var out bytes.Buffer
		c := newCLI(&out, nil)
		c.now = sluiceNow
		if err := printStatus(c, s); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	s := api.Status{Version: "v1", PID: 1, Started: noon, XDPGeneration: "ab", TCGeneration: "cd", Engine: api.EngineStatus{Revision: 3, Applied: true}}
	const quiet = `node        -, sluice v1, pid 1, up 0s
revision    3, applied
generation  xdp ab, tc cd
bgp         0 of 0 neighbors established
`
	if got := show(s); got != quiet {
		t.Errorf("got\n%s", got)
	}
	s.Engine.Pending = &api.Pending{Revision: 3, Remaining: 12.4} // its checks alone decide
	want := strings.Replace(quiet, "generation", "pending     goes back to nothing if a check fails within 12s\ngeneration", 1)
	if got := show(s); got != want {
		t.Errorf("got\n%s", got)
	}
	s.Engine = api.EngineStatus{}
	if got := show(s); !strings.Contains(got, "revision    none\n") {
		t.Errorf("before the first revision:\n%s", got)
	}
	s.Engine = api.EngineStatus{Revision: 3, Down: true}
	if got := show(s); !strings.Contains(got, "revision    3, taken down\n") {
		t.Errorf("after down:\n%s", got)
	}
}

func TestAnAnswerOfAnotherVersion(t *testing.T) {
	err := printers["sets"](newCLI(&bytes.Buffer{}, nil), json.RawMessage(`{"sets": []}`))
	if err == nil || !strings.HasPrefix(err.Error(), "the daemon's answer is not understood (is it of another version?): json: cannot unmarshal object") {
		t.Errorf("error %v", err)
	}
}

func TestExplain(t *testing.T) {
	b := daemonOf(t, &box{explain: api.Explanation{
		Packet: "tcp 192.0.2.7:1234 > 203.0.113.9:443 flags=S",
		Hooks: []api.HookAnswer{
			{Hook: "xdp", Interface: "eth0", Verdict: "pass", Reason: "rule_accept", Text: "a rule accepts it", Policy: "ingress", Rule: "ingress/web",
				File: "edge.yaml", Line: 31, PassedOver: []api.PassedOver{{Rule: "ingress/no-bogons", Line: 30, Why: "source differs"}, {Rule: "system/bgp-a-in", Why: "port differs"}}},
			{Hook: "tcx-ingress", Interface: "eth0", Verdict: "drop", Reason: "default_drop", Text: "the default drops it", Policy: "workload/w/ingress"},
			{Hook: "tcx-ingress", Interface: "eth1", Verdict: "stack", Reason: "stack_mtu", Text: "too large", TooLarge: "the kernel forwards fragments"},
			{Hook: "tcx-ingress", Interface: "eth0", Verdict: "redirect", Reason: "workload", Text: "to a workload", RedirectTo: "w"},
		},
		Bug: "policy ingress: x",
	}})
	sluice(t, "explain", "--in", "eth0", "--packet", "tcp a > b").is(t, done(`tcp 192.0.2.7:1234 > 203.0.113.9:443 flags=S
xdp on eth0: pass, rule_accept: a rule accepts it
  passed over ingress/no-bogons (line 30): source differs
  passed over system/bgp-a-in: port differs
  by rule ingress/web (edge.yaml:31)
tcx-ingress on eth0: drop, default_drop: the default drops it
  by the default of workload/w/ingress
tcx-ingress on eth1: stack, stack_mtu: too large
  the kernel forwards fragments
tcx-ingress on eth0: redirect, workload: to a workload
  to w
BUG, please report: policy ingress: x
`))
	if got := sluice(t, "explain", "--out", "eth0", "--packet", "icmp", "-o", "json"); got.code != exitDone || !json.Valid([]byte(got.out)) {
		t.Errorf("%+v", got)
	}
	if want := []string{`explain eth0 "tcp a > b" egress=false`, `explain eth0 "icmp" egress=true`}; !cmp.Equal(b.asked, want) {
		t.Errorf("the daemon was asked %q, want %q", b.asked, want)
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 30: "5.0 GiB", 3 << 50: "3072.0 TiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d bytes: %q, want %q", n, got, want)
		}
	}
}

func TestATimeToComeIsNoNegativeAge(t *testing.T) {
	c := newCLI(io.Discard, io.Discard)
	c.now = sluiceNow
	for at, want := range map[time.Time]string{{}: "never", noon: "0s ago", noon.Add(-90 * time.Second): "1m30s ago", noon.Add(time.Hour): "an unknown time ago"} {
		if got := c.ago(at, "never"); got != want {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
}
