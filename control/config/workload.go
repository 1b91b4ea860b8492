package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v3"
)

// WorkloadSource is a workload that no file has: what an orchestrator says of it. What it leaves out is "".
type WorkloadSource struct {
	Name, Interface string
	Addresses       []string
	SNAT, Path      string
	File            string // of Policy, for places
	Policy          []byte // YAML: the keys of an entry of workloads: that are not said here
}

// saidBeside are the keys of a workload that stand in the request and not in its policy file.
var saidBeside = []string{"name", "interface", "addresses"}

// Beside is a configuration as workloads see it that stand beside its file: what their rules may name, and what is
// claimed. It is never changed.
type Beside struct {
	cfg      *Config
	names    map[string]at
	families map[string]families
	owners   map[string]bool
}

// NewBeside looks at every prefix of c once.
func NewBeside(c *Config) *Beside {
	x := &Beside{cfg: c, names: map[string]at{"self": {}}, families: map[string]families{}, owners: map[string]bool{}}
	for i := range c.Sets {
		s := &c.Sets[i]
		have := familiesOf(s.Prefixes)
		if have == 0 || len(s.Watched) > 0 {
			have = bothFamilies
		}
		x.names[s.Name], x.families[s.Name], x.owners[s.Name] = at{pos: s.Pos, path: "sets"}, have, false
	}
	for i := range c.Workloads {
		w := &c.Workloads[i]
		var have families
		for _, a := range w.Addresses {
			have |= familyOf(a)
		}
		x.names[w.Name], x.families[w.Name], x.owners[w.Name] = at{pos: w.Pos, path: "workloads"}, have, true
	}
	return x
}

// Parse reads a workload as if it stood in the file: its rules may name the file's sets and workloads. An error is of type
// Errors; one of a value outside of Policy has no place but its path. What it claims is not compared: Clashes.
func (x *Beside) Parse(src WorkloadSource) (Workload, error) {
	r := newReader(newReport(src.File))
	entry := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: nowhere}
	said := map[string]bool{}
	say := func(key string, value *yaml.Node) {
		said[key] = true
		entry.Content = append(entry.Content, word(key), value)
	}
	say("name", word(src.Name))
	say("interface", word(src.Interface))
	addresses := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: nowhere}
	for _, a := range src.Addresses {
		addresses.Content = append(addresses.Content, word(a))
	}
	say("addresses", addresses)
	for key, value := range map[string]string{"snat": src.SNAT, "path": src.Path} {
		if value != "" {
			say(key, word(value))
		}
	}
	if len(src.Policy) > 0 {
		r.addPolicy(entry, src.Policy, said)
	}
	var raw rawConfig
	item := rawWorkload{}
	if r.into(&item, entry, r.at(entry, root)) {
		raw.Workloads.items = []rawWorkload{item}
	}
	b := newBuilder(r.report, &setReader{})
	b.names, b.families, b.owners = maps.Clone(x.names), maps.Clone(x.families), maps.Clone(x.owners)
	delete(b.names, src.Name)
	b.workloads(raw.Workloads.items)
	for i := range b.cfg.Workloads {
		w := &b.cfg.Workloads[i]
		w.Ingress = b.rules(&item.Ingress, ofWorkload)
		w.Egress = b.rules(&item.Egress, ofWorkload)
		w.Added, w.Pos = true, Pos{}
	}
	for i := range b.list {
		if b.list[i].Pos.Line == nowhere { // of the request
			b.list[i].Pos = Pos{}
		}
	}
	if err := r.err(); err != nil {
		return Workload{}, err
	}
	return b.cfg.Workloads[0], nil
}

// nowhere is the line of what stands in no file; 0 would be a key that is not there.
const nowhere = -1

func word(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Line: nowhere}
}

// addPolicy puts the keys of a policy file into the entry.
func (r *reader) addPolicy(entry *yaml.Node, policy []byte, said map[string]bool) {
	doc := r.document(policy)
	if doc == nil || !r.kind(doc, yaml.MappingNode, "a mapping", r.at(doc, root)) {
		return
	}
	for i := 0; i+1 < len(doc.Content); i += 2 {
		switch key := doc.Content[i].Value; {
		case slices.Contains(saidBeside, key):
			r.add(r.at(doc.Content[i], key), bad("the policy file of a workload does not say its %s", key).or("remove the key: it stands in the request"))
		case said[key]:
			r.add(r.at(doc.Content[i], key), bad("the request says %s already", key).or("say it in one place"))
		default:
			entry.Content = append(entry.Content, doc.Content[i], doc.Content[i+1])
		}
	}
}

// Clash is what a workload and a configuration both claim.
type Clash struct {
	Path    string // of the workload: name, interface or addresses[N]
	Message string // "the name web-1"
	With    string // who has it: "workload web-1 of the file (edge.yaml:12:5)"
	Pos     Pos    // of what stands in the configuration
}

// Error says it of the workload.
func (c Clash) Error() Error {
	return Error{Path: c.Path, Msg: c.Message + " belongs to " + c.With, Hint: "take another, or change the file first"}
}

// Clashes lists what of a workload c has claimed for something else.
func (c *Config) Clashes(w Workload) []Clash {
	var out []Clash
	clash := func(path, message string, pos Pos, what string, args ...any) {
		with := fmt.Sprintf(what, args...)
		if pos.Line > 0 {
			with += " (" + pos.String() + ")"
		}
		out = append(out, Clash{path, message, with, pos})
	}
	name, link := "the name "+w.Name, "the interface "+w.Interface
	if s := c.SetByName(w.Name); s != nil {
		clash("name", name, s.Pos, "a set of the file")
	}
	for i, a := range w.Addresses {
		path, address := fmt.Sprintf("addresses[%d]", i), "the address "+a.String()
		for _, i := range c.Interfaces {
			if slices.ContainsFunc(i.Addresses, sameAddress(a)) {
				clash(path, address, i.Pos, "interface %s of the file", i.Name)
			}
		}
		for _, t := range c.Tunnels {
			if slices.ContainsFunc(t.Addresses, sameAddress(a)) {
				clash(path, address, t.Pos, "tunnel %s of the file", t.Name)
			}
		}
	}
	for _, other := range c.Workloads {
		what := "workload " + other.Name + " of the file"
		if other.Added {
			what = "workload " + other.Name + ", which was added by the API"
		}
		if other.Name == w.Name {
			clash("name", name, other.Pos, "%s", what)
		}
		if other.Interface == w.Interface {
			clash("interface", link, other.Pos, "%s", what)
		}
		for i, a := range w.Addresses {
			if slices.Contains(other.Addresses, a) {
				clash(fmt.Sprintf("addresses[%d]", i), "the address "+a.String(), other.Pos, "%s", what)
			}
		}
	}
	for _, i := range c.Interfaces {
		if i.Name == w.Interface && i.Role != RoleWorkload {
			clash("interface", link, i.Pos, "interfaces: of the file, with role %q", i.Role)
		}
	}
	for _, t := range c.Tunnels {
		if t.Name == w.Interface {
			clash("interface", link, t.Pos, "a tunnel of the file")
		}
	}
	return out
}

func sameAddress(a netip.Addr) func(netip.Prefix) bool {
	return func(p netip.Prefix) bool { return p.Addr() == a }
}
