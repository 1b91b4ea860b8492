package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

var comparer = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

// mapping is one mapping of a file with the schema of its keys.
type mapping struct {
	path   string
	node   *yaml.Node
	schema map[string]any
}

// mappings walks a file and the schema together and finds every mapping.
func mappings(whole, s map[string]any, n *yaml.Node, path string) []mapping {
	if either, ok := s["oneOf"].([]any); ok {
		s = either[map[bool]int{true: 1}[n.Kind == yaml.MappingNode]].(map[string]any)
	}
	if ref, ok := s["$ref"].(string); ok {
		s = whole["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
	}
	var out []mapping
	switch n.Kind {
	case yaml.MappingNode:
		out = append(out, mapping{path, n, s})
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if below, ok := s["properties"].(map[string]any)[key].(map[string]any); ok {
				out = append(out, mappings(whole, below, n.Content[i+1], path+"."+key)...)
			}
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			out = append(out, mappings(whole, s["items"].(map[string]any), item, path+"[]")...)
		}
	}
	return out
}

func referenceMappings(t *testing.T) (*yaml.Node, []mapping) {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(load(t, reference).Bytes, &doc); err != nil {
		t.Fatal(err)
	}
	return &doc, mappings(schema, schema, doc.Content[0], "$")
}

// TestReferenceSetsEveryKey proves that each key of the schema stands in the reference file. That file parses, so Parse
// accepts each key of the schema.
func TestReferenceSetsEveryKey(t *testing.T) {
	_, all := referenceMappings(t)
	missing := map[string]bool{}
	for _, m := range all {
		for key := range m.schema["properties"].(map[string]any) {
			// A group has the keys of a neighbor.
			path := strings.Replace(m.path, ".bgp.groups[]", ".bgp.neighbors[]", 1) + "." + key
			before, seen := missing[path]
			missing[path] = (before || !seen) && !hasKey(m.node, key)
		}
	}
	// The rules of a workload's egress, and of a LAN's policies, have the keys of policy.ingress.rules.
	for key, absent := range missing {
		if absent && !strings.Contains(key, ".workloads[].egress.") && !strings.Contains(key, ".interfaces[].ingress.rules[]") &&
			!strings.Contains(key, ".interfaces[].egress.rules[]") {
			t.Errorf("configs/reference.yaml never sets %s", key)
		}
	}
	if len(missing) < 100 {
		t.Errorf("only %d keys were looked at", len(missing))
	}
}

// TestSchemaKnowsEveryKey offers every key name there is to every mapping of the reference file: Parse knows it
// exactly where the schema does.
func TestSchemaKnowsEveryKey(t *testing.T) {
	doc, all := referenceMappings(t)
	names := map[string]bool{"nonsense": true}
	for _, m := range all {
		for key := range m.schema["properties"].(map[string]any) {
			names[key] = true
		}
	}
	for _, m := range all {
		properties := m.schema["properties"].(map[string]any)
		refused := map[string]bool{}
		// In parts, because Errors holds no more than 100 of one file.
		for some := range slices.Chunk(slices.Sorted(maps.Keys(names)), 40) {
			for _, e := range parseWith(t, doc, m.node, some) {
				if strings.Contains(e.Msg, "unknown key") {
					refused[e.Path[strings.LastIndex(e.Path, ".")+1:]] = true
				}
			}
		}
		for name := range names {
			if _, known := properties[name]; known == refused[name] {
				t.Errorf("%s.%s: in the schema %v, refused by Parse %v", m.path, name, known, refused[name])
			}
		}
	}
}

// parseWith parses the document with keys added to one of its mappings.
func parseWith(t *testing.T, doc, m *yaml.Node, keys []string) Errors {
	t.Helper()
	before := m.Content
	defer func() { m.Content = before }()
	m.Content = slices.Clone(before)
	for _, key := range keys {
		if !hasKey(m, key) {
			m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key},
				&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "x"})
		}
	}
	encoded, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse(Source{Name: "edge.yaml", Bytes: encoded, ReadFile: setFiles})
	var list Errors
	errors.As(err, &list)
	return list
}

func hasKey(m *yaml.Node, key string) bool {
	for i := 0; i < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return true
		}
	}
	return false
}

// validate is as much of JSON Schema as Schema uses; anything else in a schema is a complaint.
func validate(whole, s map[string]any, v any, path string) (out []string) {
	complain := func(format string, args ...any) { out = append(out, path+": "+fmt.Sprintf(format, args...)) }
	for keyword, arg := range s {
		switch keyword {
		case "$schema", "$defs", "title", "description", "format", "additionalProperties":
		case "$ref":
			def := whole["$defs"].(map[string]any)[strings.TrimPrefix(arg.(string), "#/$defs/")].(map[string]any)
			out = append(out, validate(whole, def, v, path)...)
		case "type":
			types, many := arg.([]any)
			if !many {
				types = []any{arg}
			}
			if !slices.Contains(types, any(typeOf(v))) {
				complain("is %s, want %v", typeOf(v), arg)
			}
		case "enum":
			if !slices.Contains(arg.([]any), v) {
				complain("%v is not in %v", v, arg)
			}
		case "pattern":
			if text, ok := v.(string); ok && !regexp.MustCompile(arg.(string)).MatchString(text) {
				complain("%q does not match %s", text, arg)
			}
		case "minLength":
			if text, ok := v.(string); ok && float64(len(text)) < arg.(float64) {
				complain("%q is too short", text)
			}
		case "maxLength":
			if text, ok := v.(string); ok && float64(len(text)) > arg.(float64) {
				complain("%q is too long", text)
			}
		case "oneOf":
			fitting := 0
			for _, one := range arg.([]any) {
				if len(validate(whole, one.(map[string]any), v, path)) == 0 {
					fitting++
				}
			}
			if fitting != 1 {
				complain("%v fits %d alternatives", v, fitting)
			}
		case "minimum", "maximum":
			if i, ok := v.(int); ok && (keyword == "minimum" && float64(i) < arg.(float64) || keyword == "maximum" && float64(i) > arg.(float64)) {
				complain("%d is beyond the %s %v", i, keyword, arg)
			}
		case "required":
			for _, key := range arg.([]any) {
				if object, ok := v.(map[string]any); ok && object[key.(string)] == nil {
					complain("%s is missing", key)
				}
			}
		case "items":
			for i, item := range asList(v) {
				out = append(out, validate(whole, arg.(map[string]any), item, fmt.Sprintf("%s[%d]", path, i))...)
			}
		case "properties":
			object, _ := v.(map[string]any)
			for key, value := range object {
				below, ok := arg.(map[string]any)[key].(map[string]any)
				if !ok {
					complain("%s is not a property", key)
					continue
				}
				out = append(out, validate(whole, below, value, path+"."+key)...)
			}
		default:
			complain("the schema uses %s", keyword)
		}
	}
	return out
}

func asList(v any) []any {
	l, _ := v.([]any)
	return l
}

func typeOf(v any) string {
	switch v := v.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case int:
		return "integer"
	case float64:
		if v == math.Trunc(v) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return fmt.Sprintf("%T", v)
}

// TestSchemaRefusesWhatItCan shows that the schema is not merely permissive.
func TestSchemaRefusesWhatItCan(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"nodes: {}", "node: []", "interfaces: [{}]", "interfaces: [{name: a/b}]", "interfaces: [{name: eth0, role: uplnk}]",
		"interfaces: [{name: eth0, mtu: 67}]", "policy: {ingress: {rules: [{name: a, action: accept, ports: [0]}]}}",
		"policy: {ingress: {rules: [{name: a, action: accept, ports: [http]}]}}", "bgp: {asn: '65010', router_id: 198.18.0.2}",
		"policy: {ingress: {fragments: follow}}", "sockets: [{}]",
		"policy: {ingress: {rules: [{name: a, action: accept, protocol: tcp, tcp_flags: [sin]}]}}",
		"policy: {ingress: {rules: [{name: a, action: accept, vlan: [4095]}]}}", "policy: {ingress: {rules: [{name: a, action: accept, dscp: [af44]}]}}",
		"policy: {ingress: {rules: [{name: a, action: accept, length: [10]}]}}", "policy: {ingress: {rules: [{name: a, action: accept, fragment: 'no'}]}}",
		"policy: {ingress: {rules: [{name: a, action: accept, ttl: 0}]}}", "policy: {ingress: {rules: [{name: a, action: accept, protocol: icmp, icmp_types: [256]}]}}",
		"bgp: {asn: 1, router_id: 198.18.0.2, neighbors: [{name: a, address: 198.18.0.1, asn: 1, hold_time: 90}]}",
		"bgp: {asn: 1, router_id: 198.18.0.2, groups: [{asn: 2}]}", "bgp: {asn: 1, router_id: 198.18.0.2, groups: [{name: a, address: 198.18.0.1}]}",
		"bgp: {asn: 1, router_id: 198.18.0.2, groups: [{name: a, max_prefixes: {warn_at: 80}}]}",
		"bgp: {asn: 1, router_id: 198.18.0.2, groups: [{name: a, shutdown: {reason: ''}}]}", "bgp: {asn: 1, router_id: 198.18.0.2, groups: [{name: a, shutdown: why}]}",
	} {
		var document any
		if err := yaml.Unmarshal([]byte(text), &document); err != nil {
			t.Fatal(err)
		}
		if len(validate(schema, schema, document, "$")) == 0 {
			t.Errorf("the schema accepts %s", text)
		}
		if _, err := parse(text); err == nil {
			t.Errorf("Parse accepts %s", text)
		}
	}
}
