package xdp

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"sluice/xdp/classify"
)

// Policies are those of g by enum policy_index.
func (g Generation) Policies() []classify.Policy {
	return []classify.Policy{g.Failsafe, g.System, g.Ingress}
}

// Digest identifies the content of g and the object that runs it: 32 hexadecimal digits. Equal digests mean that the
// live program need not be loaded again.
func (g Generation) Digest() string { return g.DigestBy(classify.NewSums()) }

// DigestBy is Digest for who asks for several that share lists or policies.
func (g Generation) DigestBy(sums *classify.Sums) string {
	h := sha256.New()
	sums.Digest(h, g.Policies())
	g.Failsafe, g.System, g.Ingress = classify.Policy{}, classify.Policy{}, classify.Policy{}
	_ = json.NewEncoder(h).Encode(g) // plain values, so it cannot fail
	sums.Object(h, _IngressBytes)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// tables compiles the policies, unless that was done already.
func (g Generation) tables() (*classify.Tables, error) {
	if g.Tables != nil {
		return g.Tables, nil
	}
	return classify.Compile(g.Policies())
}
