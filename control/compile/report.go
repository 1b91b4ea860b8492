package compile

import (
	"unsafe"

	"sluice/control/config"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// Report is what policies cost the machine, and which of their rules an operator probably did not mean.
type Report struct {
	Objects []ObjectCost `json:"objects"`
	Hooks   []HookCost   `json:"hooks"`
	Memory  MemoryCost   `json:"memory"`
	// Findings are in the order of the policies and their rules.
	Findings []Finding `json:"findings"`
}

// ObjectCost is what the policies of one program cost.
type ObjectCost struct {
	Name        string `json:"name"` // xdp, tc
	Rules       int    `json:"rules"`
	Entries     int    `json:"entries"`
	Classes     int    `json:"classes"`
	Prefixes    int    `json:"prefixes"`
	Bytes       int64  `json:"bytes"`
	WorstProbes int    `json:"worst_probes"` // of one policy
}

// HookCost bounds the loads from tables that one packet costs at a hook, through every policy that it may meet there.
type HookCost struct {
	Hook   string `json:"hook"` // xdp, tcx-ingress, tcx-egress
	Probes int    `json:"worst_probes"`
}

// MemoryCost is that of both objects. A change holds the tables before and after it for a moment.
type MemoryCost struct {
	Tables         int64 `json:"tables"`
	TablesInSwap   int64 `json:"tables_in_swap"`
	CountersPerCPU int64 `json:"counters_per_cpu"` // of rules; times the possible CPUs
}

// Finding is a rule without effect.
type Finding struct {
	Policy  string        `json:"policy"`
	Rule    string        `json:"rule"`
	Kind    classify.Kind `json:"kind"`         // never-matches, unreachable, redundant
	By      []string      `json:"by,omitempty"` // the rules that make it so
	Message string        `json:"message"`
	File    string        `json:"file,omitempty"` // where it stands; a system rule stands nowhere
	Line    int           `json:"line,omitempty"`
}

// Redundant says whether the rule acts, though nothing would change without it; else it can never act.
func (f Finding) Redundant() bool { return f.Kind == classify.Redundant }

// NewReport reports on a configuration that compiled. At 100,000 rules it takes seconds, nearly all for the findings.
func NewReport(cfg *config.Config, d *Desired) Report {
	r := Report{Objects: []ObjectCost{
		objectCost("xdp", d.XDP.Generation.Policies(), d.XDP.Generation.Tables),
		objectCost("tc", d.TC.Generation.Policies(), d.TC.Generation.Tables),
	}}
	for _, o := range r.Objects {
		r.Memory.Tables += o.Bytes
	}
	r.Memory.TablesInSwap = 2 * r.Memory.Tables
	r.Memory.CountersPerCPU = int64(d.TC.Generation.RuleSlots) * int64(unsafe.Sizeof(abi.RuleHit{}))
	r.Hooks = hookCosts(d)
	r.Findings = Findings(cfg, d)
	return r
}

func objectCost(name string, policies []classify.Policy, t *classify.Tables) ObjectCost {
	rules := 0
	for i := range policies {
		rules += len(policies[i].Rules)
	}
	c := t.Cost()
	return ObjectCost{name, rules, c.Entries, c.Classes, c.Prefixes, c.Bytes, c.WorstProbes}
}

// hookCosts follows the order of judgement at each hook (tc/bpf/judge.h), by its longest way.
func hookCosts(d *Desired) []HookCost {
	const failsafe, system, ingress, egress = int(abi.PolicyFailsafe), int(abi.PolicySystem), int(abi.PolicyIngress), int(abi.PolicyEgress)
	x, t := d.XDP.Generation.Tables, d.TC.Generation.Tables
	in, out := t.Probes(failsafe, system, ingress), t.Probes(system, egress)+t.Probes(failsafe) // turned round: classified anew
	workloads := len(d.TC.Generation.Workloads)
	lans := workloads + len(d.TC.Generation.LANs)
	for to := range workloads {
		in = max(in, t.Probes(failsafe, system, ingress, int(abi.PolicyWorkloads)+2*to))
	}
	// From one workload or LAN to another, each the costliest. What the box itself sends to a LAN meets policy.egress as well.
	from, to := 0, 0
	for i := range lans {
		ingress := int(abi.PolicyWorkloads) + 2*i
		to = max(to, t.Probes(ingress))
		if i < workloads {
			from, out = max(from, t.Probes(ingress+1)), max(out, t.Probes(ingress))
		} else {
			from = max(from, t.Probes(failsafe, system, ingress+1))
			out = max(out, t.Probes(system, egress, ingress)+t.Probes(failsafe))
		}
	}
	in = max(in, from+to-t.Probes())
	return []HookCost{{"xdp", x.Probes(failsafe, system, ingress)}, {"tcx-ingress", in}, {"tcx-egress", out}}
}

// Findings are the rules without effect, each with its place in the file. tc's policies hold all that XDP judges.
func Findings(cfg *config.Config, d *Desired) []Finding {
	places := RulePlaces(cfg)
	out := []Finding{}
	for _, f := range classify.Lint(d.TC.Generation.Policies()) {
		at := places[f.Policy+"/"+f.Rule]
		out = append(out, Finding{f.Policy, f.Rule, f.Kind, f.By, f.Text, at.File, at.Line})
	}
	return out
}

// RulePlaces is where rules stand in the file, by policy/name. System rules stand nowhere: they follow from the file.
func RulePlaces(cfg *config.Config) map[string]config.Pos {
	places := map[string]config.Pos{}
	add := func(policy string, rules []config.Rule) {
		for i := range rules {
			places[policy+"/"+rules[i].Name] = rules[i].Pos
		}
	}
	for i := range cfg.Management {
		places["failsafe/"+cfg.Management[i].Name] = cfg.Management[i].Pos
	}
	add("ingress", cfg.Policy.Ingress.Rules)
	add("egress", cfg.Policy.Egress.Rules)
	for i := range cfg.Interfaces {
		add("interface/"+cfg.Interfaces[i].Name+"/ingress", cfg.Interfaces[i].Ingress.Rules)
		add("interface/"+cfg.Interfaces[i].Name+"/egress", cfg.Interfaces[i].Egress.Rules)
	}
	for i := range cfg.Workloads {
		add("workload/"+cfg.Workloads[i].Name+"/ingress", cfg.Workloads[i].Ingress.Rules)
		add("workload/"+cfg.Workloads[i].Name+"/egress", cfg.Workloads[i].Egress.Rules)
	}
	return places
}
