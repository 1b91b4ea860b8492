package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/feed"
	"sluice/control/host"
	"sluice/crypto/keys"
	"sluice/crypto/wireguard"
	"sluice/xdp/classify"
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
	r, err := Check(t.Context(), file, t.TempDir())
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
`, nil), t.TempDir())
	want := []string{"failsafe/m line 4: from is an empty set: it never matches", "workload/w/egress/e line 5: to is an empty set: it never matches"}
	var got []string
	for _, f := range r.Findings {
		got = append(got, fmt.Sprintf("%s/%s line %d: %s", f.Policy, f.Rule, f.Line, f.Message))
	}
	if err != nil || !slices.Equal(got, want) || len(r.Warnings) != 0 {
		t.Errorf("findings %q, warnings %q (%v), want %q", got, r.Warnings, err, want)
	}
}

// TestCheckWarnsOfWhatTunnelsOfTheFileDoNotHold: a module that this machine lacks, and a rule that asks for no tunnel.
func TestCheckWarnsOfWhatTunnelsOfTheFileDoNotHold(t *testing.T) {
	key := filepath.Join(t.TempDir(), "fra1.key")
	if _, err := keys.Generate(key); err != nil {
		t.Fatal(err)
	}
	file := place(t, `
interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}]
policy: {ingress: {rules: [{name: office, from: [10.20.0.0/16], action: accept}]}}
tunnels:
  - {name: fra1, type: wireguard, local: {address: 198.18.0.2, port: 51820}, wireguard: {backend: kernel, private_key_file: `+key+`},
     peers: [{name: p, public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=], endpoints: ["198.51.100.7:51820"], prefixes: [10.20.0.0/16]}]}
`, nil)
	want := []string{"ingress/office (" + file + ":3): accepts 10.20.0.0/16 from every interface, in clear as well, though it is behind tunnel fra1; write interfaces: [fra1]"}
	module, err := wireguard.KernelSupported(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !module {
		want = slices.Insert(want, 0, "on this machine apply would refuse backend: kernel of tunnel fra1: this kernel has no WireGuard module; load it, or write backend: auto")
	}
	if r, err := Check(t.Context(), file, t.TempDir()); err != nil || !slices.Equal(r.Warnings, want) {
		t.Errorf("warnings\n%s\n(%v), want\n%s", strings.Join(r.Warnings, "\n"), err, strings.Join(want, "\n"))
	}
}

func TestCheckAndLoadOfABadFile(t *testing.T) {
	var list config.Errors
	file := place(t, "polcy: {}\nndoe: {}\n", nil)
	if _, err := Check(t.Context(), file, t.TempDir()); !errors.As(err, &list) || len(list) != 2 || list[0].Pos.File != file {
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
	c, err := new(Daemon).parseCandidate(got)
	if err != nil || len(c.Config.SetByName("s").Prefixes) != 2 {
		t.Errorf("candidate %+v (%v)", c, err)
	}
}

// TestALongFileIsLeftToTheDaemon: what is sent is what Load would send, and what is wrong is told in the same words.
func TestALongFileIsLeftToTheDaemon(t *testing.T) {
	long := "interfaces: [{name: eth0, role: uplink}]\nsets: [{name: s, files: [b.netset, a.netset]}, {name: w, files: [gone.netset], watch: true}]\npolicy:\n  ingress:\n    rules:\n"
	for i := range 2000 {
		long += fmt.Sprintf("      - {name: r%d, from: [s], action: drop}\n", i)
	}
	sets := map[string]string{"a.netset": "192.0.2.0/24\n", "b.netset": "# b\n198.51.100.0/24\n"}
	short := long[:strings.Index(long, "      - {name: r9,")]
	for name, text := range map[string]string{"long": long, "short": short, "short with a long set": short} {
		sets := maps.Clone(sets)
		if name == "short with a long set" {
			sets["b.netset"] = strings.Repeat("198.51.100.0/24\n", 30_000)
		}
		file := place(t, text, sets)
		want, err := Load(file)
		got, judge, wrong := Collect(file)
		if diff := cmp.Diff(want, got); diff != "" || err != nil || wrong != nil || judge() != nil {
			t.Errorf("%s (-load +collect):\n%s (%v, %v)", name, diff, err, wrong)
		}
	}
	file := place(t, long, map[string]string{"a.netset": "192.0.2.0/24\n"})
	_, want := Load(file)
	if _, _, got := Collect(file); got == nil || got.Error() != want.Error() {
		t.Errorf("without a set file: %v, want %v", got, want)
	}
	file = place(t, short, map[string]string{"a.netset": "192.0.2.0/24\n", "b.netset": strings.Repeat("198.51.100.0/24\n", 30_000) + "oops\n"})
	if _, judge, err := Collect(file); err != nil || judge() == nil || !strings.Contains(judge().Error(), "b.netset:30001:1") {
		t.Errorf("a long set with a bad line: %v", err)
	}
	file = place(t, strings.Replace(long, "name: r1777, from: [s], action: drop", "name: r1777, from: [t], action: drpo", 1), sets)
	_, want = Load(file)
	c, judge, err := Collect(file)
	if err != nil {
		t.Fatal(err)
	}
	var d Daemon
	if _, refused := d.parseCandidate(c); refused == nil || refused.Error() != want.Error() {
		t.Errorf("the daemon says %v, want %v", refused, want)
	}
	if got := judge(); got == nil || got.Error() != want.Error() {
		t.Errorf("we say %v, want %v", got, want)
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
		{"missing, watched", "{name: s, files: [g], watch: true}", "", "",
			"edge.yaml:1:8: sets[0]: cannot read g: no such file or directory; a watched file must be there and good when it is first applied, be it empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := place(t, "sets: ["+c.sets+"]"+rule, map[string]string{"f": c.file})
			r, err := Check(t.Context(), file, t.TempDir())
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

// TestCheckAnswersAsApplyWouldWhereAWatchedFileIsNotGood: with what a daemon of this machine has kept of it, or without.
func TestCheckAnswersAsApplyWouldWhereAWatchedFileIsNotGood(t *testing.T) {
	const yaml = "sets: [{name: s, files: [f], watch: true}]\ninterfaces: [{name: eth0, role: uplink}]\npolicy: {ingress: {rules: [{name: r, from: [s], action: drop}]}}\n"
	for _, c := range []struct{ name, file, warning string }{
		{"missing", "", "cannot read DIR/f: no such file or directory: it is watched, and what it held when it was last good goes on"},
		{"garbage", "<html>\n", "DIR/f:1:1: \"<html>\" is not an IP address: it is watched, and what it held when it was last good goes on"},
		{"good", "192.0.2.1\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, state := place(t, yaml, nil), t.TempDir()
			path := filepath.Join(filepath.Dir(file), "f")
			keptOf(t, path, state)
			if c.file != "" {
				if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r, err := Check(t.Context(), file, state)
			if got := strings.ReplaceAll(strings.Join(r.Warnings, "\n"), filepath.Dir(file), "DIR"); err != nil || got != c.warning {
				t.Errorf("check warns %q (%v)", got, err)
			}
			cfg := parsed(t, yaml)
			cfg.Resolve(filepath.Dir(file))
			feeds := feed.New(feed.Options{Dir: keptSets(state), Log: slog.New(slog.DiscardHandler)})
			if err := prepareSets(feeds, cfg); err != nil {
				t.Errorf("plan and apply: %v", err)
			}
			if diff := cmp.Diff(r.Warnings, append([]string{}, keptWarnings(feeds, cfg)...)); diff != "" {
				t.Errorf("check and apply warn differently:\n%s", diff)
			}
		})
	}
}

// keptOf has a daemon follow a file with two prefixes until it has kept them, and removes the file.
func keptOf(t *testing.T, path, state string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("192.0.2.1\n192.0.2.2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var feeds *feed.List
	read := make(chan []feed.Problem, 1)
	feeds = feed.New(feed.Options{
		Dir: keptSets(state), Log: slog.New(slog.DiscardHandler),
		Wanted:  func() ([]string, bool) { return []string{path}, true },
		Changed: func() error { feeds.Snapshot([]string{path}).Compiled(); return nil },
		Notify:  func(feed.Change) {},
		Report:  func(p []feed.Problem) { read <- p },
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- feeds.Run(ctx) }()
	if p := <-read; len(p) > 0 {
		t.Errorf("problems %v", p)
	}
	stop()
	if err := errors.Join(<-ended, os.Remove(path)); err != nil {
		t.Fatal(err)
	}
}

// TestSoManyRulesThatNobodyLooksAreSaidSo: silence is no approval.
func TestSoManyRulesThatNobodyLooksAreSaidSo(t *testing.T) {
	cfg := parsed(t, "interfaces: [{name: eth0, role: uplink}]\n")
	desired, err := compile.Compile(cfg, compile.Runtime{}, pretend(cfg))
	if err != nil {
		t.Fatal(err)
	}
	if said := lintWarnings(cfg, desired); len(said) != 0 {
		t.Errorf("of no rules: %q", said)
	}
	desired.TC.Generation.Ingress.Rules = make([]classify.Rule, maxLinted+1)
	want := []string{"20001 rules are too many to look here for those that can never act: run `sluice check -c FILE`"}
	if said := lintWarnings(cfg, desired); !slices.Equal(said, want) {
		t.Errorf("warnings %q, want %q", said, want)
	}
}

func TestAVLANChildLargerThanThisMachinesParentIsToldOf(t *testing.T) {
	cfg := &config.Config{Interfaces: []config.Interface{
		{Name: "large", Parent: "trunk", MTU: 9000}, {Name: "small", Parent: "trunk", MTU: 1500}, {Name: "elsewhere", Parent: "eth9", MTU: 9000},
		{Name: "eth0", MTU: 9000}, {Name: "child", Parent: "eth0", MTU: 9000},
	}}
	got := smallParents(cfg, map[string]host.LinkFact{"trunk": {MTU: 1500}, "eth0": {MTU: 1500}})
	want := []string{"on this machine apply would refuse interface large: its MTU 9000 is larger than that of trunk, 1500; give trunk a larger mtu"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	// The check itself takes another machine's for large enough.
	if d, err := compile.Compile(cfg, compile.Runtime{}, pretend(cfg)); err != nil || len(d.Warnings) != 0 {
		t.Errorf("%+v, %v", d, err)
	}
}
