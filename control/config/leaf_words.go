package config

// The enumerations of the file, and the bounds of its numbers.

type (
	failMode   string
	ruleMode   string
	fate       string // of what no rule decides
	tunnelType string
	backend    string
	keying     string
	authMethod string
	keep       string
	limitPer   string

	encapsulation string
)

const shadow ruleMode = "shadow"

func (Role) words() words {
	return words{
		now:  []string{"uplink", "downstream", "workload", "tunnel", "management"},
		mean: map[string]string{"wan": "uplink", "external": "uplink", "lan": "downstream", "internal": "downstream", "mgmt": "management", "oob": "management"},
	}
}

func (Path) words() words {
	return words{
		now:  []string{string(PathRedirect), string(PathStack)},
		mean: map[string]string{"fast": "redirect", "bpf": "redirect", "ebpf": "redirect", "kernel": "stack", "host": "stack", "slow": "stack"},
	}
}

func (XDPMode) words() words {
	return words{
		now: []string{"auto", "native", "generic", "none"},
		// off is a boolean to YAML 1.1, which is why the file says none.
		mean: map[string]string{"off": "none", "no": "none", "false": "none", "disabled": "none", "on": "auto", "yes": "auto",
			"true": "auto", "driver": "native", "drv": "native", "skb": "generic"},
	}
}

func (LACP) words() words {
	const either = "slow (an LACPDU in 30 seconds, what Linux and most switches take where nobody says) or fast (one a second)"
	return words{
		now:  []string{"fast", "slow", "off"},
		mean: map[string]string{"no": "off", "false": "off", "none": "off", "active-backup": "off", "1s": "fast", "short": "fast", "30s": "slow", "long": "slow", "on": either, "yes": either, "true": either, "active": either},
	}
}

func (failMode) words() words {
	return words{now: []string{"open", "closed"}, mean: map[string]string{"close": "closed", "drop": "closed", "pass": "open"}}
}

func (Action) words() words {
	return words{
		now: []string{"accept", "drop", "limit", "syn_cookie", "bypass"},
		mean: map[string]string{"allow": "accept", "permit": "accept", "pass": "accept", "deny": "drop", "block": "drop",
			"discard": "drop", "reject": "drop", "police": "limit", "ratelimit": "limit", "rate-limit": "limit",
			"syncookie": "syn_cookie", "syn-cookie": "syn_cookie", "synproxy": "syn_cookie"},
	}
}

func (fate) words() words {
	return words{now: []string{"accept", "drop"}, mean: Action("").words().mean}
}

func (Fragments) words() words {
	return words{now: []string{"accept", "drop", "track"}}
}

func (FragmentMatch) words() words {
	return words{
		now: []string{"whole", "fragmented", "first", "later"},
		mean: map[string]string{"no": "whole", "false": "whole", "none": "whole", "not-a-fragment": "whole", "yes": "fragmented",
			"true": "fragmented", "any": "fragmented", "all": "fragmented", "is-fragment": "fragmented", "initial": "first",
			"first-fragment": "first", "non-first": "later", "non-initial": "later"},
	}
}

func (ruleMode) words() words { return words{now: []string{"shadow"}} }

func (Family) words() words {
	return words{
		now: []string{string(IPv4Unicast), string(IPv6Unicast), string(IPv4FlowSpec), string(IPv6FlowSpec)},
		mean: map[string]string{"ipv4": "ipv4-unicast", "inet": "ipv4-unicast", "ipv6": "ipv6-unicast", "inet6": "ipv6-unicast",
			"flowspec": "ipv4-flowspec", "flow": "ipv4-flowspec", "flow4": "ipv4-flowspec", "inet-flow": "ipv4-flowspec", "flow6": "ipv6-flowspec", "inet6-flow": "ipv6-flowspec"},
	}
}

func (LimitAction) words() words {
	return words{
		now: []string{string(LimitStop), string(LimitWarn), string(LimitRestart)},
		mean: map[string]string{"shutdown": "stop", "disable": "stop", "block": "stop", "idle": "stop", "teardown": "stop",
			"warning": "warn", "warning-only": "warn", "log": "warn"},
	}
}

func (tunnelType) words() words {
	return words{now: []string{TypeWireGuard, TypeIPsec}, mean: map[string]string{"wg": TypeWireGuard, "esp": TypeIPsec, "ike": TypeIPsec, "ikev2": TypeIPsec}}
}

func (keying) words() words {
	return words{
		now:  []string{KeyingStatic, KeyingIKE},
		mean: map[string]string{"ikev2": KeyingIKE, "psk": KeyingIKE, "charon": KeyingIKE, "manual": KeyingStatic, "epoch": KeyingStatic},
	}
}

const (
	byPSK         authMethod = "psk"
	byCertificate authMethod = "certificate"
)

func (authMethod) words() words {
	return words{
		now: []string{string(byPSK), string(byCertificate)},
		mean: map[string]string{"pre-shared-secret": string(byPSK), "pre-shared-key": string(byPSK), "pre-shared-keys": string(byPSK), "secret": string(byPSK),
			"x509": string(byCertificate), "pubkey": string(byCertificate), "rsa": string(byCertificate), "rsa-sig": string(byCertificate),
			"rsa-signatures": string(byCertificate), "ecdsa-signatures": string(byCertificate), "cert": string(byCertificate), "certificates": string(byCertificate)},
	}
}

func (encapsulation) words() words {
	return words{
		now: []string{EncapsulationAuto, EncapsulationNone, EncapsulationUDP},
		mean: map[string]string{"no": EncapsulationNone, "false": EncapsulationNone, "off": EncapsulationNone, "esp": EncapsulationNone,
			"yes": EncapsulationUDP, "true": EncapsulationUDP, "on": EncapsulationUDP, "force": EncapsulationUDP, "nat-t": EncapsulationUDP},
	}
}

func (backend) words() words { return words{now: []string{"auto", "kernel", "userspace"}} }

func (keep) words() words { return words{now: []string{"keep"}} }

const perSource limitPer = "source"

func (limitPer) words() words {
	return words{now: []string{"rule", "source"}, mean: map[string]string{"src": "source", "address": "source", "ip": "source"}}
}

type (
	mtu           int
	metric        int
	port          uint16
	asn           uint32
	flowCount     uint32
	prefixCount   uint32
	flowSpecCount uint16
	pathCount     int
	percent       int
	hops          uint16
	multihop      uint16
	detectMult    uint16
	prefixLength  int
	ttl           uint16
	vlanID        uint16

	ipv4PrefixLen int
	ipv6PrefixLen int
	sampleRate    uint32

	localPreference uint32
	med             uint32
	prependCount    int

	probeCount   int
	replayWindow int // packets
)

const (
	minMTU  = 68   // RFC 791
	minMTU6 = 1280 // RFC 8200 section 5
	maxMTU  = 65535
)

func (mtu) bounds() (int64, int64)           { return minMTU, maxMTU }
func (metric) bounds() (int64, int64)        { return 0, 1<<31 - 1 }
func (port) bounds() (int64, int64)          { return 1, 65535 }
func (asn) bounds() (int64, int64)           { return 1, 1<<32 - 1 } // 0: RFC 7607
func (flowCount) bounds() (int64, int64)     { return 1024, 1 << 24 }
func (prefixCount) bounds() (int64, int64)   { return 1, 1<<32 - 1 }
func (flowSpecCount) bounds() (int64, int64) { return 1, 2000 } // XDP's overlay has 2048 entries
func (pathCount) bounds() (int64, int64)     { return 1, 128 }
func (percent) bounds() (int64, int64)       { return 1, 100 }
func (hops) bounds() (int64, int64)          { return 1, 254 } // GTSM: packets arrive with 256 - hops, RFC 5082
func (multihop) bounds() (int64, int64)      { return 2, 255 }
func (detectMult) bounds() (int64, int64)    { return 1, 255 } // RFC 5880 section 4.1
func (ttl) bounds() (int64, int64)           { return 1, 255 }
func (prefixLength) bounds() (int64, int64)  { return 0, 128 }
func (vlanID) bounds() (int64, int64)        { return 1, 4094 } // 0: a priority alone, 4095: reserved (802.1Q section 9.6)

func (ipv4PrefixLen) bounds() (int64, int64)   { return 1, 32 }
func (ipv6PrefixLen) bounds() (int64, int64)   { return 1, 128 }
func (probeCount) bounds() (int64, int64)      { return 1, 100 }
func (replayWindow) bounds() (int64, int64)    { return 32, 4096 }     // XFRMA_REPLAY_ESN_MAX is 4096 bits
func (localPreference) bounds() (int64, int64) { return 1, 1<<31 - 1 } // 0 GoBGP cannot set, the upper half tells our own paths apart
func (med) bounds() (int64, int64)             { return 0, 1<<32 - 1 }
func (prependCount) bounds() (int64, int64)    { return 1, 16 }
func (sampleRate) bounds() (int64, int64)      { return 1, 1<<32 - 1 }
