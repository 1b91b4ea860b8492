// Package node is the subsystem of what only a node image has of a gateway: its host name, resolver, clock, SSH server and console login.
// Elsewhere these are the machine's own, and the daemon does without this package.
package node

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"sluice/plural"
)

// State is what the box itself should be like, or is. What is zero is left as the image has it.
type State struct {
	HostName string       `json:",omitempty"`
	DNS      []netip.Addr `json:",omitempty"`
	NTP      []netip.Addr `json:",omitempty"`
	SSH      *SSH         `json:",omitempty"` // nil: no server runs
	Console  *Console     `json:",omitempty"` // nil: nobody logs in
}

// SSH is the server, which lets root in by key.
type SSH struct {
	Port uint16
	Keys []string // lines of authorized_keys(5)
	// From are those who may try: whom management: lets in; nil: anybody.
	From []netip.Prefix `json:",omitempty"`
}

// Console is a login on the screen and the serial line.
type Console struct {
	HashFile string // of root's password; what it holds is in no State
}

// part is one thing of a State that is set by itself.
type part struct {
	name string
	of   func(*State) any // a pointer to the field
	text func(State) string
	step func(*Node) stepper
}

// Op brings one part to what is wanted of it.
type Op struct {
	part string
	want State
	off  bool
	text string
}

func (o Op) String() string { return o.text }

// Teardown says that something is taken away.
func (o Op) Teardown() bool { return o.off }

// Contained says that no other subsystem sees any of it.
func (o Op) Contained() bool { return true }

// Builds says that each part stands by itself.
func (o Op) Builds() (string, []string) { return "", nil }

var parts = []part{
	{"host name", func(s *State) any { return &s.HostName }, func(s State) string { return s.HostName }, func(n *Node) stepper { return hostName{n} }},
	{"DNS servers", func(s *State) any { return &s.DNS }, func(s State) string { return joined(s.DNS) }, func(n *Node) stepper { return resolver{n} }},
	{"NTP servers", func(s *State) any { return &s.NTP }, func(s State) string { return joined(s.NTP) }, func(n *Node) stepper { return clock{n} }},
	{"SSH", func(s *State) any { return &s.SSH }, func(s State) string { return s.SSH.String() }, func(n *Node) stepper { return server{n} }},
	{"console login", func(s *State) any { return &s.Console }, func(s State) string { return "password of " + s.Console.HashFile }, func(n *Node) stepper { return login{n} }},
}

func (s *SSH) String() string {
	from := "anybody"
	if s.From != nil {
		from = plural.Of(len(s.From), "prefix", "prefixes")
	}
	return fmt.Sprintf("port %d, %s, for %s", s.Port, plural.Of(len(s.Keys), "key", "keys"), from)
}

func joined(addrs []netip.Addr) string {
	var words []string
	for _, a := range addrs {
		words = append(words, a.String())
	}
	return strings.Join(words, " ")
}

// Diff says what leads from have to want.
func (n *Node) Diff(have, want State) []Op {
	var ops []Op
	for _, p := range parts {
		now, then := reflect.ValueOf(p.of(&have)).Elem(), reflect.ValueOf(p.of(&want)).Elem()
		switch {
		case reflect.DeepEqual(now.Interface(), then.Interface()):
		case then.IsZero():
			ops = append(ops, Op{part: p.name, off: true, text: "give up the " + p.name})
		default:
			ops = append(ops, Op{part: p.name, want: want, text: fmt.Sprintf("set the %s: %s", p.name, p.text(want))})
		}
	}
	return ops
}
