package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/config"
)

// place writes files into a directory and returns the path of the first, edge.yaml.
func place(t *testing.T, yaml string, sets map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "edge.yaml")
	err := os.WriteFile(file, []byte(yaml), 0o600)
	for name, text := range sets {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPretendNamesEveryInterfaceOfTheFile(t *testing.T) {
	var names []string
	for _, l := range pretend(parsed(t, site)).Host.Links {
		names = append(names, l.Name)
		if l.PeerHere || !l.Up || l.MTU != 1500 || l.Index != len(names) || len(l.Addresses) != 0 {
			t.Errorf("link %+v", l)
		}
	}
	if !slices.Equal(names, []string{"eth0", "w"}) {
		t.Errorf("links %q", names)
	}
}

func TestCheckReportsWhatAGoodFileCosts(t *testing.T) {
	file := place(t, site+"sets: [{name: none, files: [empty.netset]}]\n", map[string]string{"empty.netset": "# nothing\n"})
	unused := file + ":23:8: sets[0]: set none is used by no rule"
	r, err := Check(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range r.Objects {
		if want := []string{"xdp", "tc"}[i]; o.Name != want || o.Bytes <= 0 || o.WorstProbes <= 0 || o.Prefixes <= 0 {
			t.Errorf("object %d is %+v", i, o)
		}
	}
	// failsafe 2, ingress 2, egress 1, the workload's 2: both objects have the same tables.
	if got := []int{r.Objects[0].Entries, r.Objects[1].Entries}; !slices.Equal(got, []int{7, 7}) {
		t.Errorf("entries %v, want 7 and 7", got)
	}
	// The longest ways: failsafe, system, ingress; and from a workload nowhere but out.
	probes := map[string]int{}
	for _, h := range r.Hooks {
		probes[h.Hook] = h.Probes
	}
	if len(probes) != 3 || probes["xdp"] <= r.Objects[0].WorstProbes || probes["tcx-ingress"] < probes["xdp"] || probes["tcx-egress"] <= r.Objects[1].WorstProbes {
		t.Errorf("probes %v for objects %+v", probes, r.Objects)
	}
	if tables := r.Objects[0].Bytes + r.Objects[1].Bytes; r.Memory != (compile.MemoryCost{Tables: tables, TablesInSwap: 2 * tables, CountersPerCPU: 1024 * 24}) {
		t.Errorf("memory %+v, want tables of %d", r.Memory, tables)
	}
	if r.File != file || !slices.Equal(r.Warnings, []string{unused}) || r.Errors == nil || len(r.Errors) != 0 {
		t.Errorf("report %+v", r)
	}
}

func TestCheckWarnsOnceOfARuleThatNeverMatches(t *testing.T) {
	r, err := Check(t.Context(), place(t, `
interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}]
sets: [{name: none, prefixes: []}]
management: {accept: [{name: m, protocol: any, from: [none]}]}
workloads: [{name: w, interface: w, addresses: [10.0.1.1], egress: {rules: [{name: e, to: [none], action: drop}]}}]
`, nil))
	want := []string{"failsafe/m line 4: from is an empty set: it never matches", "workload/w/egress/e line 5: to is an empty set: it never matches"}
	var got []string
	for _, f := range r.Findings {
		got = append(got, fmt.Sprintf("%s/%s line %d: %s", f.Policy, f.Rule, f.Line, f.Message))
	}
	if err != nil || !slices.Equal(got, want) || len(r.Warnings) != 0 {
		t.Errorf("findings %q, warnings %q (%v), want %q", got, r.Warnings, err, want)
	}
}

func TestCheckAndLoadOfABadFile(t *testing.T) {
	var list config.Errors
	file := place(t, "polcy: {}\nndoe: {}\n", nil)
	if _, err := Check(t.Context(), file); !errors.As(err, &list) || len(list) != 2 || list[0].Pos.File != file {
		t.Errorf("check: %v", err)
	}
	if _, err := Load(file); !errors.As(err, &list) || len(list) != 2 {
		t.Errorf("load: %v", err)
	}
	file = place(t, "sets: [{name: s, files: [none.netset]}]\n", nil)
	if _, err := Load(file); !errors.As(err, &list) || len(list) != 1 || !strings.Contains(err.Error(), filepath.Join(filepath.Dir(file), "none.netset")) {
		t.Errorf("a set file that is not there: %v", err)
	}
}

func TestLoadTakesTheSetFilesAlong(t *testing.T) {
	text := "interfaces: [{name: eth0, role: uplink}]\nsets: [{name: s, files: [b.netset, a.netset]}]\n"
	file := place(t, text, map[string]string{"a.netset": "192.0.2.0/24\n", "b.netset": "# b\n198.51.100.0/24\n", "other": ""})
	got, err := Load(file)
	want := api.Candidate{Name: file, Bytes: []byte(text), Files: []api.File{
		{Path: "a.netset", Contents: []byte("192.0.2.0/24\n")}, {Path: "b.netset", Contents: []byte("# b\n198.51.100.0/24\n")}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("candidate (-want +got):\n%s (%v)", diff, err)
	}
	// What was sent parses to the same at the other end.
	c, err := parser(config.Parse).candidate(got)
	if err != nil || len(c.Config.SetByName("s").Prefixes) != 2 {
		t.Errorf("candidate %+v (%v)", c, err)
	}
}

// TestCheckSaysWhatAnOperatorShouldKnowOfSets is the table of docs/set-files.md, as far as it is about whole files and sets.
func TestCheckSaysWhatAnOperatorShouldKnowOfSets(t *testing.T) {
	const rule = "\ninterfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}]\npolicy: {ingress: {rules: [{name: r, from: [s], action: drop}]}}\n"
	for _, c := range []struct{ name, sets, file, warning, wrong string }{
		{"good", "{name: s, files: [f]}", "192.0.2.0/24\n", "", ""},
		{"good and watched", "{name: s, files: [f], watch: true}", "192.0.2.0/24\n", "", ""},
		{"empty", "{name: s, files: [f]}", "", "ingress/r: from is an empty set: it never matches", ""},
		{"empty and watched", "{name: s, files: [f], watch: true}", "# none\n", "set s is empty: it matches nothing\ningress/r: from is an empty set: it never matches", ""},
		{"everything", "{name: s, files: [f]}", "192.0.2.0/24\n0.0.0.0/0\n", "set s holds 0.0.0.0/0: every address of that family is in it", ""},
		{"everything, watched", "{name: s, files: [f], watch: true}", "::/0\n", "set s holds ::/0: every address of that family is in it", ""},
		{"used by nobody", "{name: s, files: [f]}, {name: t, prefixes: [192.0.2.1]}", "192.0.2.0/24\n", "set t is used by no rule", ""},
		{"garbage", "{name: s, files: [f]}", "<html>\n", "", "f:1:1: sets[0].files[0]: \"<html>\" is not an IP address"},
		{"garbage, watched", "{name: s, files: [f], watch: true}", "<html>\n", "", "f:1:1: \"<html>\" is not an IP address"},
		{"missing, watched", "{name: s, files: [g], watch: true}", "", "/g is watched and is not here: taken as empty\nset s is empty: it matches nothing\ningress/r: from is an empty set: it never matches", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := place(t, "sets: ["+c.sets+"]"+rule, map[string]string{"f": c.file})
			r, err := Check(t.Context(), file)
			var said []string
			for _, w := range r.Warnings {
				if _, after, ok := strings.Cut(w, "]: "); ok {
					w = after // the place
				}
				said = append(said, strings.TrimPrefix(w, filepath.Dir(file)))
			}
			for _, f := range r.Findings {
				said = append(said, f.Policy+"/"+f.Rule+": "+f.Message)
			}
			wrong := ""
			if err != nil {
				wrong = strings.ReplaceAll(err.Error(), filepath.Dir(file)+"/", "")
			}
			if strings.Join(said, "\n") != c.warning || wrong != c.wrong {
				t.Errorf("warnings %q and error %q", said, wrong)
			}
		})
	}
}
