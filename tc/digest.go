package tc

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"sluice/xdp/classify"
)

// Digest identifies the content of g and the object that runs it: 32 hexadecimal digits. It knows neither interfaces
// nor their indexes; Diff compares those. JSON keeps apart what must be: a nil address list (any) is null, and an
// empty one (none) is [].
func (g Generation) Digest() string {
	h := sha256.New()
	// Every field is a plain value, so neither of the two can fail.
	_ = json.NewEncoder(h).Encode(g)
	_, _ = h.Write(_TcBytes)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Policies are those of g in the order of the policies map (enum policy_index): failsafe, system, ingress, egress, then
// by workload its ingress and its egress.
func (g Generation) Policies() []classify.Policy {
	out := []classify.Policy{g.Failsafe, g.System, g.Ingress, g.Egress}
	for _, w := range g.Workloads {
		out = append(out, w.Ingress, w.Egress)
	}
	return out
}
