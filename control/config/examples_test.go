package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

const reference = "../../configs/reference.yaml"

func load(t *testing.T, path string) Source {
	t.Helper()
	src, err := LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func examples(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("found %d example files, want at least 3 (%v)", len(files), err)
	}
	return files
}

func TestEveryExampleParsesAndFitsTheSchema(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	for _, path := range examples(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			src := load(t, path)
			if _, err := Parse(src); err != nil {
				t.Fatal(err)
			}
			var document any
			if err := yaml.Unmarshal(src.Bytes, &document); err != nil {
				t.Fatal(err)
			}
			for _, complaint := range validate(schema, schema, document, "$") {
				t.Error(complaint)
			}
		})
	}
}

// TestReferenceBecomesThisConfig shows what every key of the reference file turns into.
func TestReferenceBecomesThisConfig(t *testing.T) {
	c, err := Parse(load(t, reference))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/reference.golden.json", c)
}

// TestDefaults shows what Parse fills in where a file says next to nothing.
func TestDefaults(t *testing.T) {
	c, err := parse(`
interfaces: [{name: eth0, role: uplink}, {name: eth1, role: downstream}]
policy: {ingress: {rules: [{name: r, action: drop}]}}
management: {accept: [{protocol: tcp, ports: [22]}, {name: x, protocol: any}]}
workloads: [{name: w, interface: w, addresses: [10.0.1.1, "fd00::1"]}]
bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors:
    - {name: a, address: 198.18.0.1, asn: 65000, graceful_restart: {}, bfd: {}}
    - {name: b, address: "2001:db8::1", asn: 65000, max_prefixes: {limit: 10, action: restart}, shutdown: true}
  learn: {accept: [{prefix: 10.0.0.0/8}, {prefix: 10.0.0.0/8, ge: 16}, {prefix: 10.0.0.0/8, le: 24}, {prefix: "::/0", ge: 1, le: 48}]}
tunnels:
  - name: t
    type: wireguard
    local: {address: 198.18.0.2, port: 51820}
    wireguard: {private_key_file: /k}
    peers: [{name: p, public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=]}]
`)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/defaults.golden.json", c)
}

func golden(t *testing.T, path string, c *Config) {
	t.Helper()
	got, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestNamesAreFound(t *testing.T) {
	c, err := Parse(load(t, reference))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.SetByName("testers"); s == nil || s.Name != "testers" {
		t.Errorf("SetByName(testers) = %v", s)
	}
	if w := c.WorkloadByName("web-1"); w == nil || w.Name != "web-1" {
		t.Errorf("WorkloadByName(web-1) = %v", w)
	}
	if s, w := c.SetByName("web-1"), c.WorkloadByName("testers"); s != nil || w != nil {
		t.Errorf("a set answers for a workload's name, or the other way: %v %v", s, w)
	}
}

// TestRevisionNeedsNoDisk parses stored bytes again with a ReadFile over Config.Files, as a rollback does.
func TestRevisionNeedsNoDisk(t *testing.T) {
	for _, path := range examples(t) {
		src := load(t, path)
		first, err := Parse(src)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(Source{Name: src.Name, Bytes: src.Bytes, ReadFile: func(path string) ([]byte, error) {
			for _, f := range first.Files {
				if f.Path == path {
					return f.Contents, nil
				}
			}
			return nil, os.ErrNotExist
		}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, again, comparer); diff != "" {
			t.Errorf("%s: the revision differs from the file (-file +revision):\n%s", path, diff)
		}
	}
}
