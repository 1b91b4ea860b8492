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
// live program need not be loaded again. JSON keeps apart what must be: a nil address list (any) is null, and an empty
// one (none) is [].
func (g Generation) Digest() string {
	h := sha256.New()
	// Every field is a plain value, so neither of the two can fail.
	_ = json.NewEncoder(h).Encode(g)
	_, _ = h.Write(_IngressBytes)
	return hex.EncodeToString(h.Sum(nil)[:16])
}
