package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/daemon"
	"sluice/control/host"
)

func TestCheckOfTheExamples(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d examples (%v)", len(files), err)
	}
	for _, file := range files {
		got := sluice(t, "check", "-c", file)
		if got.code != exitDone || got.err != "" || !strings.HasPrefix(got.out, file+" is good\nOBJECT  RULES  ENTRIES") {
			t.Errorf("%+v", got)
		}
		var r daemon.Report
		js := sluice(t, "check", "-c", file, "-o", "json")
		if err := json.Unmarshal([]byte(js.out), &r); err != nil || js.code != exitDone || js.err != "" {
			t.Fatalf("-o json: %+v (%v)", js, err)
		}
		if r.File != file || len(r.Objects) != 2 || r.Objects[0].Name != "xdp" || r.Objects[1].Name != "tc" || r.Objects[0].Bytes == 0 || r.Errors == nil {
			t.Errorf("report %+v", r)
		}
	}
}

func TestCheckWarnsOfRulesThatNobodyMeant(t *testing.T) {
	file := write(t, "e.yaml", `
interfaces: [{name: eth0, role: uplink}]
policy:
  ingress:
    rules:
      - {name: all, action: accept}
      - {name: late, from: [192.0.2.0/24], action: drop}
  egress:
    rules:
      - {name: one, to: [192.0.2.0/24], action: drop}
      - {name: both, to: [192.0.2.0/23], action: drop}
`)
	got := sluice(t, "check", "-c", file)
	if got.code != exitDone || got.err != "" {
		t.Fatalf("%+v", got)
	}
	golden(t, "testdata/check.golden.txt", strings.ReplaceAll(got.out, file, "e.yaml"))
	var r daemon.Report
	js := sluice(t, "check", "-c", file, "-o", "json")
	if err := json.Unmarshal([]byte(js.out), &r); err != nil {
		t.Fatal(err)
	}
	want := []daemon.Finding{
		{Policy: "ingress", Rule: "late", Kind: "unreachable", By: []string{"all"}, File: file, Line: 7,
			Message: "rule all before it matches all that it could: it is never reached"},
		{Policy: "egress", Rule: "one", Kind: "redundant", By: []string{"both"}, File: file, Line: 10,
			Message: "rule both behind it does the same, and none in between differs: without it no verdict changes"},
	}
	if diff := cmp.Diff(want, r.Findings); diff != "" {
		t.Error(diff)
	}
}

// TestCheckNamesABoundedNumberOfRules in its text, and all of them in JSON.
func TestCheckNamesABoundedNumberOfRules(t *testing.T) {
	yaml := "interfaces: [{name: eth0, role: uplink}]\npolicy: {ingress: {rules: [{name: all, action: accept}"
	for i := range 50 {
		yaml += fmt.Sprintf(", {name: r%d, action: drop}", i)
	}
	file := write(t, "e.yaml", yaml+"]}}\n")
	got := sluice(t, "check", "-c", file)
	if n := strings.Count(got.out, "warning: "); n != 21 || !strings.HasSuffix(got.out, "warning: and 30 more such rules: `sluice check -o json` names them\n") {
		t.Errorf("%d warnings:\n%s", n, got.out)
	}
	var r daemon.Report
	js := sluice(t, "check", "-c", file, "-o", "json")
	if err := json.Unmarshal([]byte(js.out), &r); err != nil || len(r.Findings) != 50 {
		t.Errorf("%d findings in JSON (%v)", len(r.Findings), err)
	}
}

func TestCheckOfABadFileTellsAllAtOnce(t *testing.T) {
	file := write(t, "bad.yaml", `interfaces:
  - {name: a-name-that-is-too-long, role: uplink}
  - {name: eth0, role: sideways}
polcy: {}
policy:
  ingress: {rules: [{name: r, from: [nobody], action: drop}]}
`)
	got := sluice(t, "check", "-c", file)
	if got.code != exitNo || got.out != "" {
		t.Errorf("%+v", got)
	}
	golden(t, "testdata/bad.golden.txt", strings.ReplaceAll(got.err, file, "bad.yaml"))
	lines := strings.Split(strings.TrimSuffix(got.err, "\n"), "\n")
	for _, line := range lines {
		if !strings.HasPrefix(line, file+":") {
			t.Errorf("not a place and a text: %q", line)
		}
	}
	var r daemon.Report
	js := sluice(t, "check", "-c", file, "-o", "json")
	if err := json.Unmarshal([]byte(js.out), &r); err != nil || js.code != exitNo || js.err != "" || r.File != file || len(r.Errors) != len(lines) {
		t.Fatalf("-o json: %+v (%v)", js, err)
	}
	for i, e := range r.Errors {
		if e.String() != lines[i] {
			t.Errorf("error %d is %q in JSON and %q as text", i, e, lines[i])
		}
	}
	// plan, diff and apply refuse it before anybody is asked.
	b := daemonOf(t, &box{})
	for _, verb := range []string{"plan", "diff", "apply"} {
		if by := sluice(t, verb, "-c", file); by != got {
			t.Errorf("%s: %+v, want what check says", verb, by)
		}
	}
	if len(b.asked) != 0 {
		t.Errorf("the daemon was asked %q", b.asked)
	}
}

func TestCheckOfWhatOnlyTheCompilerSees(t *testing.T) {
	file := write(t, "e.yaml", `interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}]
bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors:
    - {name: a, address: 198.18.0.1, asn: 65000, families: [ipv6-unicast]}
`)
	sluice(t, "check", "-c", file).is(t, outcome{exitNo, "", file + ":6:7: bgp.neighbors[0].families: ipv6-unicast over this session needs an IPv6 next hop; " +
		"give an uplink an IPv6 address, or leave the family out\n"})
}

func TestCheckRefusesWhatApplyWouldAndWarnsOfWhatNobodyMeant(t *testing.T) {
	const site = "interfaces:\n  - {name: eth0, role: uplink, addresses: [198.18.0.2/24]}\n  - {name: eth1, role: downstream, addresses: [10.1.0.1/24]}\n"
	file := write(t, "e.yaml", site+`routes:
  - {prefix: 0.0.0.0/0, via: [198.18.7.1]}
tunnels:
  - name: site
    type: wireguard
    local: {address: 198.18.0.2, port: 51820}
    wireguard: {private_key_file: /none.key}
    peers:
      - {name: far, public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=], prefixes: [10.1.0.0/24]}
`)
	sluice(t, "check", "-c", file).is(t, outcome{exitNo, "", file + ":5:5: routes[0].via[0]: next hop 198.18.7.1 is on no link of this box; correct it, or give an interface an address in its network\n" +
		file + ":12:9: tunnels[0].peers[0].prefixes[0]: 10.1.0.0/24 is the network of eth1, which has a route of the same metric; take it out of prefixes, or write routes: false\n"})
	file = write(t, "e.yaml", site+`bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors: [{name: tor, address: 203.0.113.77, asn: 65000}]
  advertise: [{prefixes: [8.8.8.0/24]}, {prefixes: [0.0.0.0/0]}]
telemetry: {metrics: "192.0.2.9:9750"}
`)
	got := sluice(t, "check", "-c", file)
	var told []string
	for line := range strings.Lines(got.out) {
		if strings.HasPrefix(line, "warning: ") {
			told = append(told, line)
		}
	}
	want := []string{
		"warning: neighbor tor: 203.0.113.77 is in no network of this box, and a session with another AS crosses no router unless multihop says how many: it will not come up\n",
		"warning: telemetry.metrics: 192.0.2.9 is not an address of this box now: apply fails until it is\n",
		"warning: bgp.advertise[0]: nothing of this box is in 8.8.8.0/24: no address, workload, tunnel or route; what neighbors send here for it goes by whatever route there is, or is dropped\n",
		"warning: bgp.advertise[1]: with 0.0.0.0/0 neighbors send here what they have no other route for\n",
	}
	if diff := cmp.Diff(want, told); diff != "" || got.code != exitDone {
		t.Errorf("%+v (-want +got):\n%s", got, diff)
	}
}

func TestAFileThatIsNotThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none.yaml")
	want := "sluice: read the configuration: open " + file + ": no such file or directory\n"
	for _, verb := range []string{"check", "plan", "diff", "apply"} {
		sluice(t, verb, "-c", file).is(t, outcome{exitNo, "", want})
		sluice(t, verb, "-c", file, "-o", "json").is(t, outcome{exitNo, "", want})
	}
}

func TestSchema(t *testing.T) {
	got := sluice(t, "check", "--schema")
	var schema map[string]any
	if err := json.Unmarshal([]byte(got.out), &schema); err != nil || got.code != exitDone || got.err != "" {
		t.Fatalf("%+v (%v)", got, err)
	}
	properties, _ := schema["properties"].(map[string]any)
	for _, key := range []string{"node", "interfaces", "policy", "bgp", "tunnels"} {
		if properties[key] == nil {
			t.Errorf("the schema does not know %s", key)
		}
	}
}

func TestKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys", "t.key")
	made := sluice(t, "key", "gen", file)
	public := strings.TrimSuffix(made.out, "\n")
	if raw, err := base64.StdEncoding.DecodeString(public); err != nil || len(raw) != 32 || made.code != exitDone || made.err != "" {
		t.Fatalf("%+v", made)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
	secret, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(secret)) == public {
		t.Fatalf("the file holds the public key (%v)", err)
	}

	sluice(t, "key", "show", file).is(t, done(made.out))
	sluice(t, "key", "show", file, "-o", "json").is(t, done("{\n  \"file\": \""+file+"\",\n  \"public_key\": \""+public+"\"\n}\n"))
	sluice(t, "key", "gen", file).is(t, outcome{exitNo, "", "sluice: key file exists already and is never overwritten: " + file + "\n"})
	if after, err := os.ReadFile(file); err != nil || string(after) != string(secret) {
		t.Errorf("the key was changed (%v)", err)
	}

	bad := write(t, "bad.key", "hunter2\n")
	for _, f := range []string{bad, filepath.Join(t.TempDir(), "none.key")} {
		got := sluice(t, "key", "show", f)
		if got.code != exitNo || got.out != "" || !strings.Contains(got.err, f) || strings.Contains(got.err, "hunter2") {
			t.Errorf("%+v", got)
		}
	}
}

// TestDoctor: what it finds depends on the machine; that text, JSON and exit code agree does not.
func TestDoctor(t *testing.T) {
	js := sluice(t, "doctor", "-o", "json")
	var findings []host.Finding
	if err := json.Unmarshal([]byte(js.out), &findings); err != nil || len(findings) == 0 {
		t.Fatalf("%+v (%v)", js, err)
	}
	code := exitDone
	text := sluice(t, "doctor")
	for _, f := range findings {
		if f.Status == host.StatusMissing {
			code = exitNo
		}
		if !strings.Contains(text.out, f.Name) {
			t.Errorf("the text does not name %s", f.Name)
		}
	}
	if js.code != code || text.code != code || js.err+text.err != "" {
		t.Errorf("exit codes %d and %d, want %d; stderr %q", js.code, text.code, code, js.err+text.err)
	}
}

func TestAPresharedKeyIsMadeOnceForItsOwnerAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys", "t.psk")
	sluice(t, "key", "psk", file).is(t, done(file+"\n"))
	made, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || len(made) != 45 { // base64 of 32 bytes, and a newline
		t.Errorf("mode %v, %d bytes, error %v", info.Mode(), len(made), err)
	}
	sluice(t, "key", "psk", file).is(t, outcome{exitNo, "", "sluice: key file exists already and is never overwritten: " + file + "\n"})
	if again, err := os.ReadFile(file); err != nil || string(again) != string(made) {
		t.Errorf("the file was changed (%v)", err)
	}
}
