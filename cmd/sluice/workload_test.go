package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/api"
)

func TestWorkloadsAreAddedAndDeleted(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(policy, []byte("ingress: {default: drop}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const plain = "workload add web-1 --interface veth1 --address 10.0.1.10,fd00:1::10"
	for _, c := range []struct {
		args, asked string
		change      api.WorkloadChange
		out         string
	}{
		{plain, "add [{Name:web-1 Interface:veth1 Addresses:[10.0.1.10 fd00:1::10] SNAT: Path: Policy: PolicyFile:.}]",
			api.WorkloadChange{Name: "web-1", Change: "added", State: "attached"}, "workload web-1 is added and attached\n"},
		{plain + " --snat auto --path stack --policy " + policy,
			"add [{Name:web-1 Interface:veth1 Addresses:[10.0.1.10 fd00:1::10] SNAT:auto Path:stack Policy:ingress: {default: drop}\n PolicyFile:web.yaml}]",
			api.WorkloadChange{Name: "web-1", Change: "replaced", State: "waiting"}, "workload web-1 is replaced: it waits for its interface, which is not there yet\n"},
		{plain, "*", api.WorkloadChange{Name: "web-1", Change: "unchanged", State: "refused", Why: "because"}, "workload web-1 is unchanged and REFUSED: because\n"},
		{"workload del web-1 web-2", `delete ["web-1" "web-2"]`, api.WorkloadChange{Name: "web-1", Change: "removed"}, "workload web-1 is removed\n"},
	} {
		b := daemonOf(t, &box{changes: []api.WorkloadChange{c.change}})
		if got := sluice(t, strings.Fields(c.args)...); got.code != exitDone || got.err != "" || got.out != c.out {
			t.Errorf("%s: %+v", c.args, got)
		}
		if len(b.asked) != 1 || c.asked != "*" && b.asked[0] != c.asked {
			t.Errorf("%s: the daemon was asked %q, want %q", c.args, b.asked, c.asked)
		}
		var printed []api.WorkloadChange
		if js := sluice(t, append(strings.Fields(c.args), "-o", "json")...); json.Unmarshal([]byte(js.out), &printed) != nil || len(printed) != 1 || printed[0] != c.change {
			t.Errorf("%s -o json: %+v", c.args, js)
		}
	}
	for _, args := range []string{"workload add", "workload del", "workload add a", "workload add a --interface b", "workload add a --address 10.0.0.1",
		"workload add a b --interface c --address 10.0.0.1"} {
		if got := sluice(t, strings.Fields(args)...); got.code != exitUsage || got.err == "" {
			t.Errorf("%s: %+v", args, got)
		}
	}
	if got := sluice(t, strings.Fields(plain+" --policy /nowhere")...); got.code != exitNo || !strings.Contains(got.err, "--policy: open /nowhere") {
		t.Errorf("a policy that is not there: %+v", got)
	}
}
