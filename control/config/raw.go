package config

import "net/netip"

// The shape of the file. A key's Go type says what it may hold. Field tags name the key and whether it is required.

type rawConfig struct {
	at
	Node       rawNode            `key:"node"`
	Interfaces list[rawInterface] `key:"interfaces"`
	Routes     list[rawRoute]     `key:"routes"`
	Sysctls    list[rawSysctl]    `key:"sysctls"`
	Management rawManagement      `key:"management"`
	Forward    list[rawForward]   `key:"forward"`
	Sets       list[rawSet]       `key:"sets"`
	Sockets    list[rawSocket]    `key:"sockets"`
	Policy     rawPolicy          `key:"policy"`
	Workloads  list[rawWorkload]  `key:"workloads"`
	SNAT       rawSNAT            `key:"snat"`
	Conntrack  rawConntrack       `key:"conntrack"`
	BGP        rawBGP             `key:"bgp"`
	Tunnels    list[rawTunnel]    `key:"tunnels"`
	Apply      rawApply           `key:"apply"`
	Telemetry  rawTelemetry       `key:"telemetry"`
}

type rawNode struct {
	at
	Name     val[name]    `key:"name"`
	StateDir val[absPath] `key:"state_dir"`
	BPFDir   val[absPath] `key:"bpf_dir"`
	Socket   val[absPath] `key:"socket"`

	Governor pick[governor] `key:"cpu_governor"`

	DNS     list[val[unicast]] `key:"dns"`
	NTP     list[val[unicast]] `key:"ntp"`
	SSH     rawSSH             `key:"ssh"`
	Console rawConsole         `key:"console"`
}

type rawSSH struct {
	at
	Port           num[port]         `key:"port"`
	AuthorizedKeys list[val[sshKey]] `key:"authorized_keys,required"`
}

type rawConsole struct {
	at
	Login            val[truth]   `key:"login,required"`
	PasswordHashFile val[absPath] `key:"password_hash_file"`
}

type rawInterface struct {
	at
	Name      val[linkName]            `key:"name,required"`
	Role      pick[Role]               `key:"role"`
	MTU       num[mtu]                 `key:"mtu"`
	Addresses list[val[addressPrefix]] `key:"addresses"`
	XDP       rawXDP                   `key:"xdp"`
	NIC       rawNIC                   `key:"nic"`
	SNAT      val[snat]                `key:"snat"`
	Bandwidth rawBandwidth             `key:"bandwidth"`
	Parent    val[linkName]            `key:"parent"`
	VLAN      num[vlanID]              `key:"vlan"`
	Members   list[val[linkName]]      `key:"members"`
	LACP      pick[LACP]               `key:"lacp"`
	Ingress   rawRules                 `key:"ingress"`
	Egress    rawRules                 `key:"egress"`
}

type rawBandwidth struct {
	at
	Egress val[bitRate] `key:"egress,required"`
}

type rawXDP struct {
	at
	Mode pick[XDPMode]  `key:"mode"`
	Fail pick[failMode] `key:"fail"`
}

type rawRoute struct {
	at
	Prefix val[network]       `key:"prefix,required"`
	Via    list[val[unicast]] `key:"via,required"`
	Metric num[metric]        `key:"metric"`
}

type rawSysctl struct {
	at
	Key   val[sysctlKey]   `key:"key,required"`
	Value val[sysctlValue] `key:"value,required"`
}

type rawManagement struct {
	at
	Accept list[rawManagementRule] `key:"accept,required"`
}

type rawManagementRule struct {
	at
	Name     val[name]        `key:"name"`
	From     list[val[ref]]   `key:"from"`
	Protocol val[protocol]    `key:"protocol,required"`
	Ports    list[val[ports]] `key:"ports"`
}

type rawForward struct {
	at
	From    pick[Role] `key:"from,required"`
	To      pick[Role] `key:"to,required"`
	Transit val[truth] `key:"transit"`
}

type rawSet struct {
	at
	Name     val[name]          `key:"name,required"`
	Prefixes list[val[target]]  `key:"prefixes"`
	Files    list[val[setPath]] `key:"files"`
	Watch    val[truth]         `key:"watch"`
}

type rawSocket struct {
	at
	Name       val[name]           `key:"name,required"`
	Interfaces list[val[linkName]] `key:"interfaces"`
}

type rawPolicy struct {
	at
	Ingress rawRules `key:"ingress"`
	Egress  rawRules `key:"egress"`
}

type rawRules struct {
	at
	Default   pick[fate]      `key:"default"`
	Fragments pick[Fragments] `key:"fragments"`
	Rules     list[rawRule]   `key:"rules"`
}

type rawRule struct {
	at
	Name        val[name]           `key:"name,required"`
	From        list[val[ref]]      `key:"from"`
	To          list[val[ref]]      `key:"to"`
	NotFrom     list[val[ref]]      `key:"not_from"`
	NotTo       list[val[ref]]      `key:"not_to"`
	Protocol    val[protocol]       `key:"protocol"`
	Ports       list[val[ports]]    `key:"ports"`
	SourcePorts list[val[ports]]    `key:"source_ports"`
	TCPFlags    list[val[tcpFlag]]  `key:"tcp_flags"`
	ICMPTypes   list[val[icmpType]] `key:"icmp_types"`
	Fragment    pick[FragmentMatch] `key:"fragment"`
	VLAN        list[val[vlans]]    `key:"vlan"`
	Length      list[val[lengths]]  `key:"length"`
	DSCP        list[val[dscp]]     `key:"dscp"`
	TTL         num[ttl]            `key:"ttl"`
	Interfaces  list[val[linkName]] `key:"interfaces"`
	Action      pick[Action]        `key:"action,required"`
	Mode        pick[ruleMode]      `key:"mode"`
	Limit       rawLimit            `key:"limit"`
	Socket      val[name]           `key:"socket"`
	Log         rawLog              `key:"log"`
}

type rawLimit struct {
	at
	Rate       val[rate]          `key:"rate,required"`
	Burst      val[burst]         `key:"burst"`
	Per        pick[limitPer]     `key:"per"`
	IPv4Prefix num[ipv4PrefixLen] `key:"ipv4_prefix"`
	IPv6Prefix num[ipv6PrefixLen] `key:"ipv6_prefix"`
}

type rawLog struct {
	at
	Sample num[sampleRate] `key:"sample,required"`
}

type rawWorkload struct {
	at
	Name      val[name]                `key:"name,required"`
	Interface val[linkName]            `key:"interface,required"`
	Addresses list[val[singleAddress]] `key:"addresses,required"`
	Ingress   rawRules                 `key:"ingress"`
	Egress    rawRules                 `key:"egress"`
	SNAT      val[snat]                `key:"snat"`
	Bandwidth rawBandwidth             `key:"bandwidth"`
	Path      pick[Path]               `key:"path"`
}

type rawSNAT struct {
	at
	Ports val[snatPorts] `key:"ports"`
}

type rawConntrack struct {
	at
	MaxEntries num[flowCount] `key:"max_entries"`
}

type rawBGP struct {
	at
	ASN       num[asn]           `key:"asn,required"`
	RouterID  val[routerID]      `key:"router_id,required"`
	Listen    num[port]          `key:"listen"`
	FallOver  val[truth]         `key:"fast_external_failover"`
	Groups    list[rawGroup]     `key:"groups"`
	Neighbors list[rawNeighbor]  `key:"neighbors"`
	Advertise list[rawAdvertise] `key:"advertise"`
	Learn     rawLearn           `key:"learn"`
	FlowSpec  rawFlowSpec        `key:"flowspec"`
	Blackhole rawBlackhole       `key:"blackhole"`
}

type rawApply struct {
	at
	Checks list[rawCheck] `key:"checks"`
}

type rawCheck struct {
	at
	Neighbors pick[keep]   `key:"neighbors"`
	Reach     val[unicast] `key:"reach"`
}

type rawTelemetry struct {
	at
	Metrics val[endpoint] `key:"metrics"`
}

// good returns the values of a list that could be read.
func good[T any](l list[val[T]]) []T {
	var out []T
	for _, v := range l.items {
		if v.ok {
			out = append(out, v.v)
		}
	}
	return out
}

// allGood says that there is nothing in a list that could not be read.
func allGood[T any](l list[val[T]]) bool { return !l.unsure() && len(good(l)) == len(l.items) }

// prefixes returns the values of a list of prefixes that could be read.
func prefixes[T interface{ prefix() netip.Prefix }](l list[val[T]]) []netip.Prefix {
	var out []netip.Prefix
	for _, v := range good(l) {
		out = append(out, v.prefix())
	}
	return out
}
