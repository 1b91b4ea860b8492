package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/api"
)

// verbs are all words that make a command, such as "show status", hidden ones included.
func verbs() (out [][]string) {
	root := newCLI(nil, nil).root()
	forEach(root, func(cmd *cobra.Command) {
		out = append(out, strings.Fields(strings.TrimPrefix(cmd.CommandPath(), "sluice")))
	})
	return out
}

func TestEveryVerbHasHelp(t *testing.T) {
	for _, words := range verbs() {
		name := strings.Join(append([]string{"sluice"}, words...), " ")
		got := sluice(t, append(slices.Clone(words), "--help")...)
		if got.code != exitDone || got.err != "" || !strings.Contains(got.out, "Usage:\n  "+name) {
			t.Errorf("%s --help: %+v", name, got)
		}
		if by := sluice(t, append([]string{"help"}, words...)...); by != got {
			t.Errorf("help %s differs from %s --help: %+v", strings.Join(words, " "), name, by)
		}
	}
	root := newCLI(nil, nil).root()
	forEach(root, func(cmd *cobra.Command) {
		if s := cmd.Short; s == "" || strings.HasSuffix(s, ".") || len(s) > 100 {
			t.Errorf("%s: its one line of help is %q", cmd.CommandPath(), s)
		}
	})
}

func TestTheVerbsOfTheDesignAreThere(t *testing.T) {
	var have []string
	for _, words := range verbs() {
		have = append(have, strings.Join(words, " "))
	}
	for _, verb := range []string{
		"run", "check", "plan", "diff", "apply", "confirm", "rollback", "history", "show", "show config", "explain",
		"ban", "unban", "drain", "undrain", "workload add", "workload del", "clear counters", "clear flows", "monitor", "capture",
		"key gen", "key psk", "key master", "key show", "key rotate", "tunnel restart", "doctor", "support", "down", "version", "lab up", "lab down", "lab run",
	} {
		if !slices.Contains(have, verb) {
			t.Errorf("there is no verb %q", verb)
		}
	}
	for _, n := range api.Nouns {
		if !slices.Contains(have, "show "+n.Name) || printers[n.Name] == nil {
			t.Errorf("noun %s has no verb or no text form", n.Name)
		}
	}
}

func TestAWordWithVerbsBelowItPrintsItsHelp(t *testing.T) {
	for _, words := range [][]string{{}, {"show"}, {"key"}, {"lab"}, {"completion"}} {
		if got := sluice(t, words...); got.code != exitDone || !strings.Contains(got.out, "Available Commands:") || got.err != "" {
			t.Errorf("sluice %q: %+v", words, got)
		}
	}
}

func TestWrongUsage(t *testing.T) {
	file := write(t, "e.yaml", minimal)
	for _, c := range []struct{ args, want string }{
		{"frobnicate", "unknown command \"frobnicate\" for \"sluice\"; see `sluice --help`"},
		{"show everything", "unknown command \"everything\" for \"sluice show\"; see `sluice show --help`"},
		{"key steal", "unknown command \"steal\" for \"sluice key\"; see `sluice key --help`"},
		{"help frobnicate", "there is no verb \"frobnicate\"; `sluice --help` lists them"},
		{"help show frobs", "there is no verb \"show frobs\"; `sluice --help` lists them"},
		{"completion tcsh", "unknown command \"tcsh\" for \"sluice completion\"; did you mean bash or fish or zsh?; see `sluice completion --help`"},
		{"--frob", "unknown flag: --frob; see `sluice --help`"},
		{"check --frob", "unknown flag: --frob; see `sluice check --help`"},
		{"check -c", "--config needs a FILE behind it; see `sluice check --help`"},
		{"check stray.yaml", "a file goes behind -c: sluice check -c stray.yaml; see `sluice check --help`"},
		{"apply stray.yaml -m x", "a file goes behind -c: sluice apply -c stray.yaml; see `sluice apply --help`"},
		{"diff a.yaml b.yaml", "diff takes no word behind it but flags, and got \"a.yaml b.yaml\"; see `sluice diff --help`"},
		{"histry", "unknown command \"histry\" for \"sluice\"; did you mean history?; see `sluice --help`"},
		{"show dorps", "unknown command \"dorps\" for \"sluice show\"; did you mean drops?; see `sluice show --help`"},
		{"flows", "unknown command \"flows\" for \"sluice\"; did you mean: sluice show flows?; see `sluice --help`"},
		{"workload list", "unknown command \"list\" for \"sluice workload\"; did you mean: sluice show workloads?; see `sluice workload --help`"},
		{"workload remove web-1", "unknown command \"remove\" for \"sluice workload\"; did you mean del?; see `sluice workload --help`"},
		{"workload create web-1", "unknown command \"create\" for \"sluice workload\"; did you mean add?; see `sluice workload --help`"},
		{"workload add --name web-1", "unknown flag: --name: the name is a word of its own; write it as: sluice workload add NAME; see `sluice workload add --help`"},
		{"monitor --drop", "unknown flag: --drop; did you mean --drops?; see `sluice monitor --help`"},
		{"monitor --drops=perhaps", "--drops=perhaps: it takes no value; see `sluice monitor --help`"},
		{"ban 192.0.2.7 --for 10", "--for 10: write a time with its unit, such as 90s, 10m, 12h or 7d; see `sluice ban --help`"},
		{"capture -w x --port http", "--port http: write a number from 1 to 65535, such as 443; see `sluice capture --help`"},
		{"capture -w x --port 0", "--port 0: write a number from 1 to 65535, such as 443; see `sluice capture --help`"},
		{"capture -w x --count many", "--count many: write a whole number, such as 1000; see `sluice capture --help`"},
		{"capture -w x --size 10x", "--size 10x: write a size, such as 500kB, 10MB or 2GB; see `sluice capture --help`"},
		{"capture -w x y", "capture takes no word behind it but flags, and got \"y\"; see `sluice capture --help`"},
		{"show policy --top all", "--top all: write a whole number, such as 10; see `sluice show policy --help`"},
		{"show flows 192.0.2.7/99", "\"192.0.2.7/99\" is no address and no prefix"},
		{"show flows --limit 0", "--limit 0: write a whole number, such as 1000; see `sluice show flows --help`"},
		{"clear flows", "say which flows, or --all; see `sluice clear flows --help`"},
		{"clear flows 192.0.2.7 --all", "--all goes with no filter; see `sluice clear flows --help`"},
		{"clear flows --port 0", "--port 0: write a number from 1 to 65535, such as 443; see `sluice clear flows --help`"},
		{"ban", "write it as: sluice ban TARGET...; see `sluice ban --help`"},
		{"version -o xml", "-o xml: say text or json"},
		{"apply -c FILE --confirm 0s", "--confirm 0s: write a time with its unit, such as 90s, 10m, 12h or 7d; see `sluice apply --help`"},
		{"apply -c FILE --confirm -1m", "--confirm -1m: write a time with its unit, such as 90s, 10m, 12h or 7d; see `sluice apply --help`"},
		{"apply -c FILE --confirm 2", "--confirm 2: write a time with its unit, such as 90s, 10m, 12h or 7d; see `sluice apply --help`"},
		{"rollback 1 2", "write it as: sluice rollback [N]; see `sluice rollback --help`"},
		{"rollback first", "\"first\" is no revision; `sluice history` lists them"},
		{"rollback 0", "\"0\" is no revision; `sluice history` lists them"},
		{"rollback 2 --confirm 0s", "--confirm 0s: write a time with its unit, such as 90s, 10m, 12h or 7d; see `sluice rollback --help`"},
		{"show config x", "\"x\" is no revision; `sluice history` lists them"},
		{"show config 0", "\"0\" is no revision; `sluice history` lists them"},
		{"explain", "give --packet and one of --in and --out; see `sluice explain --help`"},
		{"explain --in eth0", "give --packet and one of --in and --out; see `sluice explain --help`"},
		{"explain --packet x", "give --packet and one of --in and --out; see `sluice explain --help`"},
		{"explain --in a --out b --packet x", "give --packet and one of --in and --out; see `sluice explain --help`"},
		{"key gen", "write it as: sluice key gen FILE; see `sluice key gen --help`"},
		{"run --log-level loud", "--log-level loud: say debug, info, warn or error"},
	} {
		t.Run(c.args, func(t *testing.T) {
			b := daemonOf(t, &box{})
			sluice(t, strings.Fields(strings.ReplaceAll(c.args, "FILE", file))...).is(t, outcome{exitUsage, "", "sluice: " + c.want + "\n"})
			if len(b.asked) != 0 {
				t.Errorf("the daemon was asked %q", b.asked)
			}
		})
	}
}

// daemonVerbs are all that speak to the daemon, with FILE for a good file.
var daemonVerbs = []string{
	"plan -c FILE", "diff -c FILE", "apply -c FILE", "confirm", "rollback 2", "history", "show status", "show config", "show config 3",
	"explain --in eth0 --packet x", "down",
}

func TestAnUnreachableDaemonIsExitCode3(t *testing.T) {
	file, socket := write(t, "e.yaml", minimal), filepath.Join(t.TempDir(), "none")
	for _, args := range daemonVerbs {
		t.Run(args, func(t *testing.T) {
			words := append(strings.Fields(strings.ReplaceAll(args, "FILE", file)), "--socket", socket)
			sluice(t, words...).is(t, outcome{exitUnreachable, "",
				"sluice: could not reach the daemon on " + socket + ": it is not running, or has another --socket\n"})
		})
	}
}

func TestARefusalIsExitCode1(t *testing.T) {
	file := write(t, "e.yaml", minimal)
	for _, args := range daemonVerbs {
		t.Run(args, func(t *testing.T) {
			daemonOf(t, &box{fail: &api.Failure{Message: "no: it is pending", Refused: true}})
			sluice(t, strings.Fields(strings.ReplaceAll(args, "FILE", file))...).is(t, outcome{exitNo, "", "sluice: no: it is pending\n"})
		})
	}
}

func TestWhatTheDaemonFindsWrongWithAFileIsPrintedLikeWhatCheckFinds(t *testing.T) {
	daemonOf(t, &box{fail: &api.Failure{Message: "collecting facts: twice", Refused: true, Problems: []api.Problem{
		{File: "e.yaml", Line: 3, Column: 5, Path: "interfaces[0].name", Message: "there is no interface eth7", Hint: "interfaces here are eth0"},
		{File: "e.yaml", Line: 9, Column: 1, Path: "tunnels[0]", Message: "no key"},
	}}})
	sluice(t, "apply", "-c", write(t, "e.yaml", minimal)).is(t, outcome{exitNo, "",
		"e.yaml:3:5: interfaces[0].name: there is no interface eth7; interfaces here are eth0\ne.yaml:9:1: tunnels[0]: no key\n"})
}

func TestVerbs(t *testing.T) {
	file := write(t, "e.yaml", minimal)
	pending := &api.Pending{Revision: 4, Base: 3, Remaining: 119.6, Confirm: true}
	b := box{
		plan:   somePlan,
		stored: api.StoredConfig{Meta: api.Revision{Number: 3, Status: "confirmed"}, Bytes: []byte("node: {name: a}")},
		history: []api.Revision{
			{Number: 1, Time: noon.Add(-49 * time.Hour), Author: "ann", Message: "first", Status: "confirmed"},
			{Number: 2, Time: noon, Status: "reverted", Reason: "not confirmed in time"},
		},
	}
	for _, c := range []struct {
		args, asked, want string
		result            api.Result
	}{
		{args: "plan -c FILE", asked: `plan e.yaml "interfaces: [{name: eth0, role: uplink}]\n" 0 files`,
			want: "from revision 3: 2 steps\n  + host  add address 198.18.0.2/30 to eth0\n  - bgp   withdraw 203.0.113.0/24\nwarning: a rule is never reached\n"},
		{args: "apply -c FILE -m why", asked: `apply e.yaml "interfaces: [{name: eth0, role: uplink}]\n" confirm 0s message "why" author "ann"`,
			result: api.Result{Revision: 4, Plan: somePlan}, want: "revision 4 is live, 2 steps\nwarning: a rule is never reached\n"},
		{args: "apply -c FILE --confirm 2m", asked: `apply e.yaml "interfaces: [{name: eth0, role: uplink}]\n" confirm 120s message "" author "ann"`,
			result: api.Result{Revision: 4, Plan: api.Plan{Steps: somePlan.Steps}, Pending: pending},
			want:   "revision 4 is live, 2 steps\nit goes back to revision 3 in 2m0s unless you run: sluice confirm\n"},
		{args: "apply -c FILE", asked: `apply e.yaml "interfaces: [{name: eth0, role: uplink}]\n" confirm 0s message "" author "ann"`,
			result: api.Result{Revision: 3, Unchanged: true}, want: "nothing to do: revision 3 stands\n"},
		{args: "apply -c FILE", asked: `apply e.yaml "interfaces: [{name: eth0, role: uplink}]\n" confirm 0s message "" author "ann"`,
			result: api.Result{Revision: 3, Unchanged: true, Mended: &api.Mended{At: noon, Why: "drift", Steps: []string{"xdp: attach XDP on eth0 in mode native", "tc: attach tcx on eth0 as uplink"}}},
			want:   "nothing to do: revision 3 stands\nat 2026-03-01 12:00:00 (drift) the daemon did by itself:\n  xdp: attach XDP on eth0 in mode native\n  tc: attach tcx on eth0 as uplink\n"},
		{args: "apply -c FILE", asked: `apply e.yaml "interfaces: [{name: eth0, role: uplink}]\n" confirm 0s message "" author "ann"`,
			result: api.Result{Revision: 4, Plan: api.Plan{Steps: somePlan.Steps[:1]}, Mended: &api.Mended{At: noon, Why: "apply", Steps: strings.Fields("a b c d e f g h i j k l")}},
			want: "revision 4 is live, 1 step\nthe file is as before; what differed on the machine is mended:\n" +
				"  a\n  b\n  c\n  d\n  e\n  f\n  g\n  h\n  i\n  j\n  and 2 more\n"},
		{args: "apply -c FILE --confirm 1m", asked: `apply e.yaml "interfaces: [{name: eth0, role: uplink}]\n" confirm 60s message "" author "ann"`,
			result: api.Result{Revision: 4, Unchanged: true, Pending: &api.Pending{Remaining: 60, Confirm: true}},
			want:   "revision 4 is live already; its clock starts again\nit goes back to nothing in 1m0s unless you run: sluice confirm\n"},
		{args: "confirm", asked: "confirm", want: "revision 4 is confirmed\n"},
		{args: "rollback", asked: `rollback 0 confirm 0s message "" author "ann"`,
			result: api.Result{Revision: 3, WentBack: 4}, want: "revision 4 was not confirmed and is taken back: revision 3 is live\n"},
		{args: "rollback 2 --confirm 90s -m why", asked: `rollback 2 confirm 90s message "why" author "ann"`,
			result: api.Result{Revision: 5, Plan: api.Plan{Steps: somePlan.Steps}}, want: "revision 5 is live, 2 steps\n"},
		{args: "history", asked: "history", want: "" +
			"REVISION  TIME                 STATUS     AUTHOR  MESSAGE  WHY REVERTED\n" +
			"1         2026-02-27 11:00:00  confirmed  ann     first    -\n" +
			"2         2026-03-01 12:00:00  reverted   -       -        not confirmed in time\n"},
		{args: "show config", asked: "config 0", want: "# revision 3, confirmed\nnode: {name: a}\n"},
		{args: "show config 7", asked: "config 7", want: "# revision 3, confirmed\nnode: {name: a}\n"},
		{args: "down", asked: "down", want: "everything of Sluice's is gone but management addresses and routes; revisions, bans and keys stay in the state directory\n"},
	} {
		t.Run(c.args, func(t *testing.T) {
			b := b
			b.result = c.result
			daemonOf(t, &b)
			words := strings.Fields(strings.ReplaceAll(c.args, "FILE", file))
			sluice(t, words...).is(t, done(c.want))
			if asked := b.askedToDo(); !slices.Equal(asked, []string{c.asked}) {
				t.Errorf("the daemon was asked %q, want %q", asked, c.asked)
			}
			js := sluice(t, append(words, "-o", "json")...)
			if js.code != exitDone || !json.Valid([]byte(js.out)) || js.err != "" {
				t.Errorf("-o json: %+v", js)
			}
		})
	}
}

func TestDiff(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "e.yaml")
	contents := "interfaces: [{name: eth0, role: uplink}]\nsets:\n  - {name: a, files: [a.netset]}\n  - {name: b, files: [b.netset]}\n"
	for name, text := range map[string]string{"e.yaml": contents, "a.netset": "10.0.0.0/8\n", "b.netset": "192.0.2.0/24\n"} {
		if err := writeFile(filepath.Join(dir, name), text); err != nil {
			t.Fatal(err)
		}
	}
	b := daemonOf(t, &box{stored: api.StoredConfig{
		Meta: api.Revision{Number: 3}, Bytes: []byte(contents),
		Files: []api.File{{Path: "a.netset", Contents: []byte("10.0.0.0/8\n")}, {Path: "b.netset", Contents: []byte("192.0.2.0/24\n")}},
	}})
	sluice(t, "diff", "-c", file).is(t, done(file+" is revision 3\n"))
	sluice(t, "diff", "-c", file, "-o", "json").is(t, done("[]\n"))

	b.stored.Bytes = []byte(strings.Replace(contents, "eth0", "eth1", 1))
	b.stored.Files = []api.File{{Path: "a.netset", Contents: []byte("10.0.0.0/8\n198.51.100.0/24\n")}, {Path: "gone.netset", Contents: []byte("192.0.2.1\n")}}
	got := sluice(t, "diff", "-c", file)
	got.out = strings.ReplaceAll(got.out, dir+"/", "")
	got.is(t, done(`--- revision 3 e.yaml
+++ e.yaml
@@ -1,4 +1,4 @@
-interfaces: [{name: eth1, role: uplink}]
+interfaces: [{name: eth0, role: uplink}]
 sets:
   - {name: a, files: [a.netset]}
   - {name: b, files: [b.netset]}
--- revision 3 a.netset
+++ a.netset
@@ -1,2 +1 @@
 10.0.0.0/8
-198.51.100.0/24
--- revision 3 b.netset
+++ b.netset
@@ -0,0 +1 @@
+192.0.2.0/24
--- revision 3 gone.netset
+++ gone.netset
@@ -1 +0,0 @@
-192.0.2.1
`))
	var diffs []fileDiff
	js := sluice(t, "diff", "-c", file, "-o", "json")
	if err := json.Unmarshal([]byte(js.out), &diffs); err != nil || len(diffs) != 4 || diffs[0].Path != "" || diffs[3].Path != "gone.netset" {
		t.Errorf("-o json: %s (%v)", js.out, err)
	}
}

func TestVersion(t *testing.T) {
	sluice(t, "version").is(t, done(version+"\n"))
	sluice(t, "version", "-o", "json").is(t, done("{\n  \"version\": \""+version+"\"\n}\n"))
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), 1}, {errSilent, 1}, {&api.Failure{}, 1}, {usageError{errors.New("x")}, 2},
		{errors.Join(errors.New("x"), api.ErrUnreachable), 3},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestHistorySaysWhatIsNotKept(t *testing.T) {
	daemonOf(t, &box{history: []api.Revision{{Number: 3, Status: "confirmed"}, {Number: 5, Status: "confirmed"}}})
	got := sluice(t, "history")
	if got.code != exitDone || !strings.HasSuffix(got.out, "\nrevisions 1 to 2: not kept\nrevision 4: not kept\n") {
		t.Errorf("%+v", got)
	}
}

func TestStatusAndPlanNameTheSetFilesThatDiffer(t *testing.T) {
	daemonOf(t, &box{shown: api.Status{Engine: api.EngineStatus{Revision: 3, File: "e.yaml", FileDiffers: true, SetFiles: []string{"a.netset", "b.netset"}}}})
	got := sluice(t, "show", "status")
	for _, path := range []string{"a.netset", "b.netset"} {
		if want := "set file    " + path + " differs from revision 3: apply takes it in\n"; !strings.Contains(got.out, want) {
			t.Errorf("status does not say %q:\n%s", want, got.out)
		}
	}
	if strings.Contains(got.out, "e.yaml") {
		t.Errorf("the file itself does not differ:\n%s", got.out)
	}
}

// TestWhoWaitsForChecksIsTold: an apply without --confirm is silent otherwise until they were watched.
func TestWhoWaitsForChecksIsTold(t *testing.T) {
	daemonOf(t, &box{shown: api.Status{Engine: api.EngineStatus{Pending: &api.Pending{Revision: 5, Base: 4, Remaining: 28.7}}}})
	said, err := io.Pipe()
	c := newCLI(io.Discard, err)
	c.root()
	end := c.tellOfChecks(t.Context())
	got, _ := bufio.NewReader(said).ReadString('\n')
	end()
	if want := "revision 5 is live; its checks are watched for 29s more: Ctrl-C ends the waiting only\n"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
}
