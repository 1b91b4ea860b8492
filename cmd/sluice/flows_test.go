package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
)

func TestFlowsAreAskedForByEveryFilter(t *testing.T) {
	for args, want := range map[string]string{
		"show flows":              "show flows",
		"show flows 192.0.2.7":    "flows {FlowFilter:{Address:192.0.2.7 Port:0 Protocol: State: Workload: Rule: Translated:false} Limit:100 Count:false}",
		"show flows --limit 7":    "flows {FlowFilter:{Address: Port:0 Protocol: State: Workload: Rule: Translated:false} Limit:7 Count:false}",
		"show flows --count":      "flows {FlowFilter:{Address: Port:0 Protocol: State: Workload: Rule: Translated:false} Limit:100 Count:true}",
		"clear flows --all":       "clear flows {FlowFilter:{Address: Port:0 Protocol: State: Workload: Rule: Translated:false} All:true}",
		"clear flows fd00::/8":    "clear flows {FlowFilter:{Address:fd00::/8 Port:0 Protocol: State: Workload: Rule: Translated:false} All:false}",
		"clear flows --state new": "clear flows {FlowFilter:{Address: Port:0 Protocol: State:new Workload: Rule: Translated:false} All:false}",
		"show flows --port 443 --protocol tcp --state new --workload web-1 --rule ingress/web --nat": "flows {FlowFilter:{Address: Port:443 Protocol:tcp " +
			"State:new Workload:web-1 Rule:ingress/web Translated:true} Limit:100 Count:false}",
	} {
		b := daemonOf(t, &box{})
		if got := sluice(t, strings.Fields(args)...); got.code != exitDone || got.err != "" {
			t.Errorf("%s: %+v", args, got)
		}
		if diff := cmp.Diff([]string{want}, b.asked); diff != "" {
			t.Errorf("%s: the daemon was asked\n%s", args, diff)
		}
	}
}

func TestFlowsAreCounted(t *testing.T) {
	daemonOf(t, &box{})
	sluice(t, "show", "flows", "--count").is(t, done(`4711 flows

STATE        FLOWS
established  4000
replied      700
new          11

WORKLOAD  FLOWS
web-1     4000
web-2     700
`))
	js := sluice(t, "show", "flows", "--count", "-o", "json")
	var got api.Flows
	if err := json.Unmarshal([]byte(js.out), &got); err != nil || got.Total != 4711 || got.Flows == nil || len(got.Flows) != 0 {
		t.Errorf("-o json: %+v (%v)", got, err)
	}
}

func TestClearedFlowsAreCounted(t *testing.T) {
	daemonOf(t, &box{})
	sluice(t, "clear", "flows", "--all").is(t, done("forgot 12 flows\n"))
	sluice(t, "clear", "flows", "--all", "-o", "json").is(t, done("{\n  \"flows\": 12\n}\n"))
}
