package table_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
	"sluice/xdp/table"
)

// headerMaps compiles maps.h and returns the maps of a generation, so that the test sees what programs see.
func headerMaps(t *testing.T) *ebpf.CollectionSpec {
	t.Helper()
	cmd := exec.Command("clang-19", "-target", "bpf", "-g", "-O2", "-I", "../include",
		"-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include/aarch64-linux-gnu",
		"-x", "c", "-c", "-", "-o", "-")
	cmd.Stdin = strings.NewReader("#include <sluice/maps.h>\n__u32 used(void) { return bucket_mask; }\n")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("clang-19: %v\n%s", err, stderr.Bytes())
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(stdout.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"reasons", "rule_hits", "flows", "fresh_out", "fresh_in", "translations", "flow_pressure", "flow_shares", "flow_events", "interfaces"} {
		delete(spec.Maps, state)
	}
	return spec
}

// load resizes and fills fresh maps.
func load(t *testing.T, tables *classify.Tables) map[string]*ebpf.Map {
	t.Helper()
	spec := headerMaps(t)
	if err := table.Resize(spec, tables); err != nil {
		t.Fatal(err)
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(collection.Close)
	if err := table.Fill(collection.Maps, tables); err != nil {
		t.Fatal(err)
	}
	return collection.Maps
}

func compile(t *testing.T, policies []classify.Policy) *classify.Tables {
	t.Helper()
	tables, err := classify.Compile(policies)
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

func TestFilledMapsHoldTheTables(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 7))
		tables := compile(t, classifytest.Policies(rng))
		maps := load(t, tables)
		holds(t, maps[table.Buckets], tables.Buckets)
		holds(t, maps[table.Leaves], tables.Leaves)
		holds(t, maps[table.Rules], tables.Rules)
		holds(t, maps[table.Verdicts], tables.Verdicts)
		holds(t, maps[table.Policies], tables.Policies)
		holds(t, maps[table.SrcUp], tables.Up[0])
		holds(t, maps[table.DstUp], tables.Up[1])
		for index := range abi.ClassTables {
			holds(t, maps[table.PrefixMap(index)], tables.Words(index))
		}
	}
}

func holds[T comparable](t *testing.T, m *ebpf.Map, want []T) {
	t.Helper()
	if got := int(m.MaxEntries()); got != max(len(want), 1) {
		t.Fatalf("%s has room for %d, want %d", m, got, len(want))
	}
	for i, w := range want {
		var got T
		lookup(t, m, uint32(i), &got)
		if got != w {
			t.Fatalf("%s, element %d: %+v, want %+v", m, i, got, w)
		}
	}
}

func lookup(t *testing.T, m *ebpf.Map, key, value any) {
	t.Helper()
	if err := m.Lookup(key, value); err != nil {
		t.Fatalf("%v in %s: %v", key, m, err)
	}
}

func TestMapsThatAreFilledAgainHoldNothingOfBefore(t *testing.T) {
	large := compile(t, []classify.Policy{{Name: "ingress", Rules: classifytest.Rules(rand.New(rand.NewPCG(1, 7)), classifytest.FW, 3000)}})
	small := compile(t, []classify.Policy{{Name: "ingress", Rules: classifytest.Rules(rand.New(rand.NewPCG(2, 7)), classifytest.FW, 30)}})
	maps := load(t, large)
	if err := table.Fill(maps, small); err != nil {
		t.Fatal(err)
	}
	refilled(t, maps[table.Leaves], small.Leaves)
	refilled(t, maps[table.Rules], small.Rules)
	refilled(t, maps[table.Verdicts], small.Verdicts)
	refilled(t, maps[table.SrcUp], small.Up[0])
	for index := range abi.ClassTables {
		refilled(t, maps[table.PrefixMap(index)], small.Words(index))
	}
}

// refilled wants the values and, in the rest of the map, zeroes.
func refilled[T comparable](t *testing.T, m *ebpf.Map, want []T) {
	t.Helper()
	for i := range m.MaxEntries() {
		var got, value T
		lookup(t, m, i, &got)
		if int(i) < len(want) {
			value = want[i]
		}
		if got != value {
			t.Fatalf("%s, element %d of %d: %+v, want %+v", m, i, len(want), got, value)
		}
	}
}

func TestTheNumberOfBucketsIsAConstantOfThePrograms(t *testing.T) {
	policy := classify.Policy{Name: "ingress", Default: classify.Drop,
		Rules: classifytest.Rules(rand.New(rand.NewPCG(1, 8)), classifytest.ACL, 500)}
	tables := compile(t, []classify.Policy{policy})
	spec := headerMaps(t)
	if err := table.Resize(spec, tables); err != nil {
		t.Fatal(err)
	}
	var mask uint32
	if err := spec.Variables["bucket_mask"].Get(&mask); err != nil {
		t.Fatal(err)
	}
	if n := len(tables.Buckets); n < 64 || int(mask) != n-1 {
		t.Errorf("the mask of %d buckets is %#x", n, mask)
	}
}

func TestResizeAndFillOfNothing(t *testing.T) {
	maps := load(t, compile(t, nil))
	for name, want := range map[string]uint32{"src4": 1, "dst4": 1, "src6": 1, "dst6": 1, "src_up": 1, "dst_up": 1,
		"buckets": 1, "leaves": 1, "rules": 1, "verdicts": 1, "policies": 1} {
		if got := maps[name].MaxEntries(); got != want {
			t.Errorf("%s has room for %d, want %d", name, got, want)
		}
	}
}

func TestAMissingMapIsNamed(t *testing.T) {
	tables := compile(t, nil)
	spec := headerMaps(t)
	delete(spec.Maps, "dst6")
	if err := table.Resize(spec, tables); err == nil || !strings.Contains(err.Error(), `no "dst6"`) {
		t.Errorf("Resize: %v", err)
	}
	maps := load(t, tables)
	delete(maps, "rules")
	if err := table.Fill(maps, tables); err == nil || !strings.Contains(err.Error(), `no "rules"`) {
		t.Errorf("Fill: %v", err)
	}
}

func TestSelfHoldsBothFamiliesUnderOneKey(t *testing.T) {
	want4 := abi.Addr{10: 0xff, 11: 0xff, 12: 192, 13: 0, 14: 2, 15: 7}
	if got := table.SelfKey(netip.MustParseAddr("192.0.2.7")); got != want4 {
		t.Errorf("192.0.2.7 is %v", got)
	}
	want6 := abi.Addr{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 15: 1}
	if got := table.SelfKey(netip.MustParseAddr("2001:db8::1")); got != want6 {
		t.Errorf("2001:db8::1 is %v", got)
	}

	spec := headerMaps(t)
	spec.Maps["self"].MaxEntries = 2
	m, err := ebpf.NewMap(spec.Maps["self"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	own := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.7")}
	if err := table.FillSelf(m, own); err != nil {
		t.Fatal(err)
	}
	for _, key := range []abi.Addr{want4, want6} {
		var value uint8
		lookup(t, m, key, &value)
		if value != 1 {
			t.Errorf("%v has the value %d", key, value)
		}
	}
	if err := table.FillSelf(m, []netip.Addr{netip.MustParseAddr("192.0.2.8")}); err == nil || !strings.Contains(err.Error(), "192.0.2.8") {
		t.Errorf("a full map: %v", err)
	}
}
