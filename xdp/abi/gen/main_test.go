package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"sluice/xdp/abi"
)

const (
	clang   = "clang-19"
	include = "../../include"
)

// mirrored is every generated struct and union by its C name.
func mirrored() map[string]any {
	return map[string]any{
		"addr":      abi.Addr{},
		"counter":   abi.Counter{},
		"rule_hit":  abi.RuleHit{},
		"interface": abi.Interface{}, "interface_slot": abi.InterfaceSlot{}, "interface_near": abi.InterfaceNear{},
		"prefix4_key": abi.Prefix4Key{},
		"prefix6_key": abi.Prefix6Key{},
		"class_range": abi.ClassRange{},
		"verdict":     abi.Verdict{},
		"bucket_slot": abi.BucketSlot{},
		"bucket":      abi.Bucket{},
		"search_plan": abi.SearchPlan{},
		"port_range":  abi.PortRange{},
		"rule":        abi.Rule{},
		"policy":      abi.Policy{},
		"flow_key":    abi.FlowKey{},
		"flow":        abi.Flow{},
		"flow_side":   abi.FlowSide{}, "flow_pressure": abi.FlowPressure{}, "flow_event": abi.FlowEvent{}, "flow_way": abi.FlowWay{},
		"translation": abi.Translation{}, "young_translation": abi.YoungTranslation{}, "generation_settings": abi.GenerationSettings{}, "snat_address": abi.SnatAddress{},
		"swept":             abi.Swept{},
		"vlan_child":        abi.VLANChild{},
		"snat_fragment_key": abi.SnatFragmentKey{}, "snat_fragment": abi.SnatFragment{}, "snat_exhaustion": abi.SnatExhaustion{},
		"workload":    abi.Workload{},
		"explanation": abi.Explanation{},
		"failsafe":    abi.Failsafe{},
		"ban":         abi.Ban{}, "ban_state": abi.BanState{}, "ban_hit": abi.BanHit{},
		"flowspec_set": abi.FlowspecSet{}, "flowspec_key4": abi.FlowspecKey4{}, "flowspec_key6": abi.FlowspecKey6{},
		"flowspec_entry": abi.FlowspecEntry{}, "flowspec_hit": abi.FlowspecHit{},
		"limiter": abi.Limiter{}, "limit_bucket": abi.LimitBucket{}, "limit_way": abi.LimitWay{}, "limit_set": abi.LimitSet{},
		"limit_pressure": abi.LimitPressure{}, "pacer_flow": abi.PacerFlow{}, "pacer": abi.Pacer{},
		"packet_event": abi.PacketEvent{}, "watch": abi.Watch{}, "watch_budget": abi.WatchBudget{},
		"capture_filter": abi.CaptureFilter{}, "capture_event": abi.CaptureEvent{},
		"socket_key": abi.SocketKey{}, "socket_losses": abi.SocketLosses{},
		"syn_listener_key": abi.SYNListenerKey{}, "syn_listener": abi.SYNListener{},
	}
}

func TestCommittedFilesAreWhatTheHeadersSay(t *testing.T) {
	files, err := generate(clang, include)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is stale, run go generate in xdp/abi (-want +got):\n%s", name, diff)
		}
	}
}

func TestEveryTypeHasTheLayoutThatClangGaveIt(t *testing.T) {
	h, err := scan(include)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := loadTypes(clang, include, h)
	if err != nil {
		t.Fatal(err)
	}
	all := mirrored()
	for _, ct := range h.types {
		if ct.kind == "enum" {
			continue
		}
		value, ok := all[ct.name]
		if !ok {
			t.Errorf("%s %s is not tested: add it to mirrored", ct.kind, ct.name)
			continue
		}
		types, err := spec.AnyTypesByName(ct.name)
		if err != nil || len(types) != 1 {
			t.Fatalf("%s: %v, %v", ct.name, types, err)
		}
		compareLayout(t, types[0], reflect.TypeOf(value))
		// Equal to binary.Size means no implicit padding: cilium/ebpf then copies the memory as it is.
		if n := binary.Size(value); n != int(reflect.TypeOf(value).Size()) {
			t.Errorf("%s: binary.Size says %d, its size is %d", ct.name, n, reflect.TypeOf(value).Size())
		}
	}
}

func compareLayout(t *testing.T, c btf.Type, g reflect.Type) {
	t.Helper()
	size, err := btf.Sizeof(c)
	if err != nil {
		t.Fatal(err)
	}
	if size != int(g.Size()) {
		t.Errorf("%s has %d bytes in Go, %d in C", g, g.Size(), size)
	}
	st, ok := c.(*btf.Struct)
	if !ok {
		return
	}
	for _, m := range st.Members {
		if m.Name == "pad" {
			continue
		}
		f, ok := g.FieldByName(goName(m.Name))
		if !ok {
			t.Errorf("%s lacks %s", g, m.Name)
			continue
		}
		bytes, err := btf.Sizeof(m.Type)
		if err != nil {
			t.Fatal(err)
		}
		if f.Offset != uintptr(m.Offset.Bytes()) || f.Type.Size() != uintptr(bytes) {
			t.Errorf("%s.%s stands at %d with %d bytes, in C at %d with %d", g, f.Name, f.Offset, f.Type.Size(), m.Offset.Bytes(), bytes)
		}
	}
}

func TestReasonsThatAreNotOfTheFormAreRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sluice"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "#define SLUICE_REASONS(X) X(NONE, pass, \"not judged\") X(BAD, pass, no_text)\n"
	if err := os.WriteFile(filepath.Join(dir, "sluice", "reason.h"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := loadReasons(clang, dir); err == nil || !strings.Contains(err.Error(), "2 reasons, 1 of them") {
		t.Errorf("got %v", err)
	}
}
