package xdp

import (
	"reflect"
	"testing"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// TestTheKeyOfRecentFlowsKnowsEveryCondition: a new field of a rule is in the key always, by a flag, or not at all, and
// somebody has to say which.
func TestTheKeyOfRecentFlowsKnowsEveryCondition(t *testing.T) {
	const inKey = 0 // always, or the packets that it is about are not remembered
	fields := map[string]uint8{
		"From": inKey, "To": inKey, "NotFrom": inKey, "NotTo": inKey, "Protocol": inKey, "Ports": inKey, "SourcePorts": inKey, "Interfaces": inKey,
		"ICMPTypes": inKey, "Fragment": inKey, // only of whole packets with ports is anything remembered
		"ID": inKey, "Name": inKey, "Action": inKey, "Argument": inKey, "Sample": inKey, // what was decided
		"TCPMask": abi.RecentTCPFlags, "TTL": abi.RecentTTL, "DSCP": abi.RecentDSCP, "VLANs": abi.RecentVLAN, "Lengths": abi.RecentLength,
		"TCPFlags": inKey, // without TCPMask it means nothing
		"Shadow":   abi.RecentOff,
	}
	rule := reflect.TypeFor[classify.Rule]()
	for i := range rule.NumField() {
		field := rule.Field(i)
		want, known := fields[field.Name]
		if !known {
			t.Errorf("%s: does a decision depend on it? See recentBy, recent_more() and this test", field.Name)
			continue
		}
		r := classify.Rule{Protocol: classify.AnyProtocol}
		set(reflect.ValueOf(&r).Elem().Field(i))
		if got := recentBy([]classify.Policy{{}, {Rules: []classify.Rule{{}, r}}}); got != want {
			t.Errorf("a rule with %s: key by %d, want %d", field.Name, got, want)
		}
	}
}

// set makes a field of a rule something that is not its zero value.
func set(v reflect.Value) {
	switch v.Kind() {
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("x")
	case reflect.Int:
		v.SetInt(1)
	default:
		v.SetUint(1)
	}
}

func TestPoliciesAreAskedByWhatIsInThem(t *testing.T) {
	rules := []classify.Rule{{Protocol: classify.AnyProtocol, Action: classify.Accept}}
	for _, test := range []struct {
		policy classify.Policy
		want   abi.Ask
	}{
		{classify.Policy{}, abi.AskNever},
		{classify.Policy{Rules: rules}, abi.AskByKeys},
		{classify.Policy{Rules: append(rules, classify.Rule{Shadow: true})}, abi.AskAlways},
		{classify.Policy{Default: classify.Drop}, abi.AskAlways},
		{classify.Policy{Rules: rules, Fragments: classify.FragDrop}, abi.AskAlways},
	} {
		if got := abi.Ask(askOf(test.policy)); got != test.want {
			t.Errorf("%+v: %d, want %d", test.policy, got, test.want)
		}
	}
}
