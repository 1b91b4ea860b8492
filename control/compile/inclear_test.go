package compile

import (
	"fmt"
	"strings"
	"testing"
)

func TestARuleThatAcceptsFromBehindATunnelInClearIsWarnedOf(t *testing.T) {
	const in = uplink + `
sets: [{name: office, prefixes: [192.0.2.0/24, 10.20.3.0/24]}]
policy: {ingress: {rules: [%s]}}
`
	for _, c := range []struct {
		rules, prefixes string
		want            []string
	}{
		{"{name: a, from: [10.20.0.0/16], action: accept}", "", []string{"10.20.0.0/16"}},
		{"{name: a, from: [office], action: accept}", "", []string{"10.20.3.0/24"}},
		{"{name: a, from: [10.20.0.9], protocol: tcp, ports: [22], action: limit, limit: {rate: 10pps, burst: 10p}}", "", []string{"10.20.0.9/32"}},
		{"{name: a, from: [10.20.0.0/16], interfaces: [t], action: accept}", "", nil},
		{"{name: a, from: [10.20.0.0/16], action: drop}", "", nil},
		{"{name: a, from: [10.20.0.0/16], action: accept, mode: shadow}", "", nil},
		{"{name: a, from: [10.0.0.0/8], action: accept}", "", nil}, // more than the peer has
		{"{name: a, to: [self], action: accept}", "", nil},
		{"{name: not-here, from: [10.0.0.0/8], interfaces: [eth0], action: drop}, {name: a, from: [10.20.0.0/16], action: accept}", "", nil},
		{"{name: not-here, from: [10.0.0.0/8], interfaces: [eth0], protocol: tcp, action: drop}, {name: a, from: [10.20.0.0/16], action: accept}", "", []string{"10.20.0.0/16"}},
		{"{name: a, from: [10.20.0.0/16], action: accept}", "0.0.0.0/0", nil},
	} {
		text := fmt.Sprintf(in, c.rules) + tunnel("t")
		if c.prefixes != "" {
			text = strings.Replace(text, "prefixes: [10.20.0.0/16]", "prefixes: ["+c.prefixes+"]", 1)
		}
		cfg := parse(t, text)
		var want []string
		for _, from := range c.want {
			want = append(want, "ingress/a (edge.yaml:4): accepts "+from+" from every interface, in clear as well, though it is behind tunnel t; write interfaces: [t]")
		}
		same(t, AcceptedInClear(cfg, compile(t, cfg, Runtime{}, eth0)), want...)
	}
}
