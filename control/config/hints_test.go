package config

import (
	"strings"
	"testing"
)

// TestWordsOfOtherFiltersAreAnswered: what somebody writes who knows another packet filter.
func TestWordsOfOtherFiltersAreAnswered(t *testing.T) {
	for _, c := range []struct{ rule, want string }{
		{"{name: r, source: [192.0.2.1], action: drop}", "unknown key `source`; did you mean from?"},
		{"{name: r, destination: [192.0.2.1], action: drop}", "unknown key `destination`; did you mean to?"},
		{"{name: r, proto: tcp, action: drop}", "unknown key `proto`; did you mean protocol?"},
		{"{name: r, protocol: tcp, dport: [80], action: drop}", "unknown key `dport`; did you mean ports?"},
		{"{name: r, from: [192.0.2.1-192.0.2.9], action: drop}", `"192.0.2.1-192.0.2.9" is a range; write it as prefixes`},
		{"{name: r, vlan: [untaged], action: drop}", `"untaged" is not a VLAN id; did you mean untagged?`},
	} {
		_, err := Parse(Source{Name: "f", Bytes: []byte("policy: {ingress: {rules: [" + c.rule + "]}}\n")})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.rule, err, c.want)
		}
	}
}
