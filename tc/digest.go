package tc

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"sluice/xdp/classify"
)

// Digest identifies the content of g and the object that runs it: 32 hexadecimal digits. It knows neither interfaces
// nor their indexes; Diff compares those.
func (g Generation) Digest() string { return g.DigestBy(classify.NewSums()) }

// DigestBy is Digest for who asks for several that share lists or policies.
func (g Generation) DigestBy(sums *classify.Sums) string {
	h := sha256.New()
	sums.Digest(h, g.Policies())
	none := classify.Policy{}
	g.Failsafe, g.System, g.Ingress, g.Egress = none, none, none, none
	g.Workloads = slices.Clone(g.Workloads)
	for i := range g.Workloads {
		g.Workloads[i].Ingress, g.Workloads[i].Egress = none, none
	}
	g.LANs = slices.Clone(g.LANs)
	for i := range g.LANs {
		g.LANs[i].Ingress, g.LANs[i].Egress = none, none
	}
	_ = json.NewEncoder(h).Encode(g) // plain values, so it cannot fail
	sums.Object(h, _TcBytes)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Policies are those of g in the order of the policies map (enum policy_index): failsafe, system, ingress, egress, then
// by workload, and by LAN, its ingress and its egress.
func (g Generation) Policies() []classify.Policy {
	out := []classify.Policy{g.Failsafe, g.System, g.Ingress, g.Egress}
	for _, w := range g.Workloads {
		out = append(out, w.Ingress, w.Egress)
	}
	for _, l := range g.LANs {
		out = append(out, l.Ingress, l.Egress)
	}
	return out
}

// tables compiles the policies, unless that was done already.
func (g Generation) tables() (*classify.Tables, error) {
	if g.Tables != nil {
		return g.Tables, nil
	}
	return classify.Compile(g.Policies())
}
