package ipsec

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Statistics returns the kernel's IPsec error counters (CONFIG_XFRM_STATISTICS) of the calling thread's network namespace,
// by the kernel's own names. They count for all tunnels and foreign states together.
func Statistics() (map[string]uint64, error) {
	data, err := os.ReadFile("/proc/thread-self/net/xfrm_stat")
	if err != nil {
		return nil, fmt.Errorf("IPsec counters: %w", err)
	}
	out := map[string]uint64{}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 {
			if out[f[0]], err = strconv.ParseUint(f[1], 10, 64); err != nil {
				return nil, fmt.Errorf("IPsec counters: %w", err)
			}
		}
	}
	return out, nil
}

// Meaning is what a counter of Statistics says to who runs tunnels; "": it is newer than this program.
func Meaning(counter string) string { return meanings[counter] }

// meanings are by the kernel's names (Documentation/networking/xfrm_proc.rst).
var meanings = map[string]string{
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
