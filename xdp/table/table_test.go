package table_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

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
	cmd.Stdin = strings.NewReader("#include <sluice/maps.h>\n")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("clang-19: %v\n%s", err, stderr.Bytes())
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(stdout.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"reasons", "rule_hits", "flows_out", "flows_in", "interfaces"} {
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

// class asks a longest-prefix map as classify.h does.
func class(t *testing.T, maps map[string]*ebpf.Map, name string, addr netip.Addr, index abi.ClassTable) uint32 {
	t.Helper()
	var key any = abi.Prefix6Key{Prefixlen: 128, Addr: addr.As16()}
	if addr.Is4() {
		key = abi.Prefix4Key{Prefixlen: 32, Addr: addr.As4()}
	}
	got := uint32(index)
	if err := maps[name].Lookup(key, &got); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Fatal(err)
	}
	return got
}

// longest is the class by looking at every prefix.
func longest(prefixes []classify.PrefixClass, addr netip.Addr, index abi.ClassTable) uint32 {
	best, bits := uint32(index), -1
	for _, pc := range prefixes {
		if pc.Prefix.Contains(addr) && pc.Prefix.Bits() > bits {
			best, bits = pc.Class, pc.Prefix.Bits()
		}
	}
	return best
}

func TestFilledMapsHoldTheTables(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 7))
		policies := classifytest.Policies(rng)
		tables := compile(t, policies)
		maps := load(t, tables)

		for i, want := range tables.Classes {
			var got abi.ClassBits
			lookup(t, maps[table.Classes], uint32(i), &got)
			if got != want {
				t.Fatalf("seed %d: class %d differs", seed, i)
			}
		}
		for i, want := range tables.Rules {
			var got abi.Rule
			lookup(t, maps[table.Rules], uint32(i), &got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d: entry %d: %s", seed, i, diff)
			}
		}
		for i, want := range tables.Policies {
			var got abi.Policy
			lookup(t, maps[table.Policies], uint32(i), &got)
			if got != want {
				t.Fatalf("seed %d: policy %d is %+v, want %+v", seed, i, got, want)
			}
		}
		for _, p := range classifytest.Packets(rng, policies, 500) {
			src, dst := abi.ClassSrc4, abi.ClassDst4
			if p.Src.Is6() {
				src, dst = abi.ClassSrc6, abi.ClassDst6
			}
			for index, addr := range map[abi.ClassTable]netip.Addr{src: p.Src, dst: p.Dst} {
				got := class(t, maps, table.PrefixMap(index), addr, index)
				if want := longest(tables.Prefixes[index], addr, index); got != want {
					t.Fatalf("seed %d: %s in %s has class %d, want %d", seed, addr, table.PrefixMap(index), got, want)
				}
			}
		}
	}
}

func lookup(t *testing.T, m *ebpf.Map, key, value any) {
	t.Helper()
	if err := m.Lookup(key, value); err != nil {
		t.Fatalf("%v in %s: %v", key, m, err)
	}
}

func TestFillWritesMoreThanOneBatch(t *testing.T) {
	policy := classify.Policy{Name: "ingress", Default: classify.Drop}
	for i := range uint32(100) {
		r := classify.Rule{ID: i + 1, Name: fmt.Sprint(i), Protocol: classify.AnyProtocol, Action: classify.Accept}
		for j := range uint32(100) {
			var v4 [4]byte
			binary.BigEndian.PutUint32(v4[:], 10<<24|(i*100+j)*2)
			v6 := netip.MustParseAddr("2001:db8::").As16()
			copy(v6[4:8], v4[:])
			r.From = append(r.From, netip.PrefixFrom(netip.AddrFrom4(v4), 32), netip.PrefixFrom(netip.AddrFrom16(v6), 64))
		}
		policy.Rules = append(policy.Rules, r)
	}
	tables := compile(t, []classify.Policy{policy})
	maps := load(t, tables)
	for _, index := range []abi.ClassTable{abi.ClassSrc4, abi.ClassSrc6} {
		if n := len(tables.Prefixes[index]); n != 10_000 {
			t.Fatalf("%d prefixes", n)
		}
		for _, pc := range tables.Prefixes[index] {
			if got := class(t, maps, table.PrefixMap(index), pc.Prefix.Addr(), index); got != pc.Class {
				t.Fatalf("%s has class %d, want %d", pc.Prefix, got, pc.Class)
			}
		}
	}
}

func TestResizeAndFillOfNothing(t *testing.T) {
	maps := load(t, compile(t, nil))
	for name, want := range map[string]uint32{"src4": 1, "dst4": 1, "src6": 1, "dst6": 1, "classes": 4, "rules": 1, "policies": 1} {
		if got := maps[name].MaxEntries(); got != want {
			t.Errorf("%s has room for %d, want %d", name, got, want)
		}
	}
}

func TestAMissingMapIsNamed(t *testing.T) {
	tables := compile(t, nil)
	spec := headerMaps(t)
	delete(spec.Maps, "dst6")
	if err := table.Resize(spec, tables); err == nil || !strings.Contains(err.Error(), `no map "dst6"`) {
		t.Errorf("Resize: %v", err)
	}
	maps := load(t, tables)
	delete(maps, "rules")
	if err := table.Fill(maps, tables); err == nil || !strings.Contains(err.Error(), `no map "rules"`) {
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
