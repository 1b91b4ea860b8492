package host

import (
	"errors"
	"io/fs"
	"strings"
)

// Forwarder is a link of which the kernel has to forward what comes in.
type Forwarder struct {
	Link string
	IPv6 bool // IPv6, too
}

// checkForwarding: Sluice switches forwarding on by interface, where its file has somebody to forward for, so the switch of the whole
// machine decides nothing for IPv4. IPv6 forwards where both are on, and Sluice sets both (include/net/ipv6.h: all is no default).
func checkForwarding(by []Forwarder) []Finding {
	return []Finding{
		forwardingOf("forwarding-ipv4", "net/ipv4/", "net/ipv4/ip_forward", false, by),
		forwardingOf("forwarding-ipv6", "net/ipv6/", "net/ipv6/conf/all/forwarding", true, by),
	}
}

func forwardingOf(name, family, whole string, six bool, by []Forwarder) Finding {
	value, err := readSysctl(whole)
	if err != nil {
		return Finding{name, StatusWarn, "cannot tell: " + err.Error(), "unknown", "see that /proc is mounted and the family is there"}
	}
	var off []string
	judged := 0
	for _, f := range by {
		if six && !f.IPv6 {
			continue
		}
		link, err := readSysctl(family + "conf/" + f.Link + "/forwarding")
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is not there yet
		}
		judged++
		if err != nil || link == "0" || six && value == "0" {
			off = append(off, f.Link)
		}
	}
	switch {
	case len(off) > 0:
		return Finding{name, StatusWarn, "off for " + strings.Join(off, ", "), "what comes in there is not forwarded: the FIB lookup answers no",
			"sluice apply switches it on, unless sysctls: in the file or another program switches it off"}
	case judged > 0:
		return ok(name, "on where workloads and networks need it")
	}
	return ok(name, whole+" is "+value+"; Sluice switches forwarding on where its file has workloads, downstreams or forward:")
}
