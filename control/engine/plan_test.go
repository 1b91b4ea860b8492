package engine

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, have string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if have != string(want) {
		t.Errorf("%s (-update writes it anew) differs; have:\n%s\nwant:\n%s", path, have, want)
	}
}

func TestOrderWithdrawsFirstBuildsThenTearsDownInReverse(t *testing.T) {
	m := &machine{}
	subs := map[string]Subsystem{}
	for _, s := range m.subsystems() {
		subs[s.Name()] = s
	}
	ops := func(name string, texts ...string) difference {
		d := difference{sub: subs[name]}
		for _, text := range texts {
			verb, key, _ := strings.Cut(text, " ")
			d.ops = append(d.ops, fakeOp{verb: verb, key: key})
		}
		return d
	}
	for _, c := range []struct {
		name      string
		announcer string
		diffs     []difference
		want      []string
	}{
		{"nothing", "bgp", []difference{ops("host"), ops("bgp")}, nil},
		{"data path before announcement", "bgp", []difference{ops("host", "set a"), ops("xdp", "set b"), ops("bgp", "set c")},
			[]string{"host set a", "xdp set b", "bgp set c"}},
		{"withdraw before tear-down", "bgp", []difference{ops("host", "del a"), ops("xdp", "del b"), ops("bgp", "del c")},
			[]string{"bgp del c", "xdp del b", "host del a"}},
		{"all at once, own order kept", "bgp",
			[]difference{
				ops("host", "del z", "set b", "del y", "set a"), ops("tc", "change c", "del x", "del w"),
				ops("bgp", "set n", "del m", "change l", "del k"),
			},
			[]string{
				"bgp del m", "bgp del k",
				"host set b", "host set a", "tc change c", "bgp set n", "bgp change l",
				"tc del x", "tc del w", "host del z", "host del y",
			}},
		{"between what builds and what is torn down", "bgp",
			[]difference{ops("host", "set between-a", "del between-b", "set c", "del d"), ops("tc", "set e", "del f"), ops("bgp", "set g")},
			[]string{"host set c", "tc set e", "bgp set g", "host set between-a", "host del between-b", "tc del f", "host del d"}},
		{"nobody announces", "", []difference{ops("host", "del a"), ops("bgp", "del c", "set d")},
			[]string{"bgp set d", "bgp del c", "host del a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var have []string
			for _, s := range order(c.diffs, c.announcer, "test") {
				have = append(have, s.Subsystem+" "+s.Op)
			}
			if !reflect.DeepEqual(have, c.want) {
				t.Errorf("have %q\nwant %q", have, c.want)
			}
		})
	}
}

func TestPlanPrintsWhatApplyWouldDoAndChangesNothing(t *testing.T) {
	s, e := running(t, confA)
	books := tree(t, s.dir)
	p, err := e.Plan(t.Context(), s.candidate(confB))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "plan.txt", p.String())
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "plan.json", string(b)+"\n")
	s.holds(confA)
	if after := tree(t, s.dir); after != books {
		t.Errorf("the state directory changed from\n%s\nto\n%s", books, after)
	}
	r := s.apply(e, confB, ApplyOptions{})
	if !reflect.DeepEqual(texts(r.Plan), texts(p)) {
		t.Errorf("apply did %q, planned was %q", texts(r.Plan), texts(p))
	}
	if done := s.m.take(); !reflect.DeepEqual(done, texts(p)) {
		t.Errorf("the machine saw %q, planned was %q", done, texts(p))
	}
	p, err = e.Plan(t.Context(), s.candidate(confB))
	if err != nil || p.String() != "from revision 2: nothing to do\n" {
		t.Errorf("planned after the apply: %q, %v", p, err)
	}
}

func texts(p Plan) []string {
	var out []string
	for _, s := range p.Steps {
		out = append(out, s.Subsystem+" "+s.Op)
	}
	return out
}

// tree prints every file under dir with its contents.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		b.WriteString(strings.TrimPrefix(path, dir) + "\n" + string(data) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestAPlanMarksWhatGoesAlsoWhereItMakesRoom: such a step is no teardown, because it comes before others.
func TestAPlanMarksWhatGoesAlsoWhereItMakesRoom(t *testing.T) {
	p := Plan{Revision: 4, Steps: []Step{{Subsystem: "wireguard", Op: "remove tunnel edge1"}, {Subsystem: "wireguard", Op: "create tunnel edge2"},
		{Subsystem: "path", Op: "take it away", Teardown: true}}}
	const want = "from revision 4: 3 steps\n  - wireguard  remove tunnel edge1\n  + wireguard  create tunnel edge2\n  - path       take it away\n"
	if got := p.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// unanswering is a subsystem that does not answer.
type unanswering struct{ Subsystem }

func (unanswering) Observe(ctx context.Context) (State, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAFileThatDoesNotCompileWaitsForNoSubsystem(t *testing.T) {
	s, e := running(t, confA)
	e.opts.Subsystems[0] = unanswering{e.opts.Subsystems[0]}
	s.fact = ""
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := e.Plan(ctx, s.candidate("xdp.kernel=$fact")); err == nil || !strings.Contains(err.Error(), "xdp.kernel has no value") || ctx.Err() != nil {
		t.Errorf("%v, with the context %v", err, ctx.Err())
	}
}
