package daemon

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"

	"sluice/control/api"
	"sluice/crypto/ipsec"
)

// xfrmCounters are the kernel's, sorted by name.
func xfrmCounters() ([]api.XFRMCounter, error) {
	all, err := ipsec.Statistics()
	if errors.Is(err, fs.ErrNotExist) { // a kernel without CONFIG_XFRM_STATISTICS
		return []api.XFRMCounter{}, nil
	}
	out := []api.XFRMCounter{}
	for name, n := range all {
		out = append(out, api.XFRMCounter{Name: name, Packets: n, Text: xfrmTexts[name]})
	}
	slices.SortFunc(out, func(a, b api.XFRMCounter) int { return cmp.Compare(a.Name, b.Name) })
	return out, err
}

// xfrmTexts say what the kernel's IPsec counters mean to who runs tunnels (Documentation/networking/xfrm_proc.rst).
var xfrmTexts = map[string]string{
	"XfrmInError":             "incoming: an error that has no counter of its own",
	"XfrmInBufferError":       "incoming: no memory for a buffer",
	"XfrmInHdrError":          "incoming: the header cannot be read",
	"XfrmInNoStates":          "incoming: nobody knows the SPI: keys were lost or renewed at one end, or somebody else's packets",
	"XfrmInStateProtoError":   "incoming: not authentic, or damaged: another key",
	"XfrmInStateModeError":    "incoming: not tunnel mode",
	"XfrmInStateSeqError":     "incoming: replayed, or late beyond the replay window",
	"XfrmInStateExpired":      "incoming: the keys are worn out",
	"XfrmInStateMismatch":     "incoming: UDP encapsulation or the selector differs from the state's",
	"XfrmInStateInvalid":      "incoming: the state is just being made or removed",
	"XfrmInTmplMismatch":      "incoming: no policy wants it by this state",
	"XfrmInNoPols":            "incoming: no policy takes it: an address that is in none of the peer's prefixes",
	"XfrmInPolBlock":          "incoming: a policy refuses it",
	"XfrmInPolError":          "incoming: an error in a policy",
	"XfrmInStateDirError":     "incoming: by a state that is for sending",
	"XfrmInIptfsError":        "incoming: an error of IP-TFS",
	"XfrmOutError":            "outgoing: an error that has no counter of its own",
	"XfrmOutBundleGenError":   "outgoing: no route to the endpoint, or no memory",
	"XfrmOutBundleCheckError": "outgoing: the route to the endpoint has changed meanwhile",
	"XfrmOutNoStates":         "outgoing: a policy without keys: nothing is negotiated yet",
	"XfrmOutStateProtoError":  "outgoing: encryption failed",
	"XfrmOutStateModeError":   "outgoing: not tunnel mode, or too large for the way",
	"XfrmOutStateSeqError":    "outgoing: the sequence numbers have run out",
	"XfrmOutStateExpired":     "outgoing: the keys are worn out",
	"XfrmOutPolBlock":         "outgoing: a policy refuses it",
	"XfrmOutPolDead":          "outgoing: the policy is being removed",
	"XfrmOutPolError":         "outgoing: an error in a policy",
	"XfrmOutStateInvalid":     "outgoing: the state is just being made or removed",
	"XfrmOutStateDirError":    "outgoing: by a state that is for receiving",
	"XfrmOutNoQueueSpace":     "outgoing: no room to wait",
	"XfrmFwdHdrError":         "forwarded: the header cannot be read",
	"XfrmAcquireError":        "a negotiation could not be asked for: nobody listens",
}
