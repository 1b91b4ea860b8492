package config

import "strings"

// snat is how sources are translated where they leave by an uplink.
type snat struct{ SNAT }

func (v *snat) takes() takes { return text }
func (v *snat) describe() schema {
	return schema{"description": "auto, none, or an address of this box"}
}
func (v *snat) parse(s string) (p problem) {
	switch {
	case s == "auto":
		v.Auto = true
		return problem{}
	case strings.ContainsAny(s, ".-"):
		if !looksLikeAddress(s) {
			return bad("%q is not an address", s).or("write auto, none, or one address of this box")
		}
	case !looksLikeAddress(s):
		return words{
			now:  []string{"auto", "none"},
			mean: map[string]string{"off": "none", "no": "none", "false": "none", "yes": "auto", "on": "auto", "true": "auto", "masquerade": "auto"},
		}.judge(s)
	}
	var one singleAddress
	if p = one.parse(s); !p.none() {
		return p
	}
	if one.IsLoopback() || one.IsLinkLocalUnicast() {
		return bad("%s does not leave this box's links", one.Addr).or("write a global address of this box, or auto")
	}
	v.Address = one.Addr
	return problem{}
}

// snatPorts is a range of ports that sources are translated to.
type snatPorts struct{ PortRange }

// minSNATPort keeps translated sources out of the ports that services trust (RFC 7605 section 6.3).
const minSNATPort = 1024

func (v *snatPorts) takes() takes { return text }
func (v *snatPorts) describe() schema {
	return schema{"pattern": "^[0-9]{4,5}-[0-9]{4,5}$"}
}
func (v *snatPorts) parse(s string) problem {
	var r ports
	if p := r.parse(s); !p.none() {
		return p
	}
	if r.First < minSNATPort {
		return bad("port %d is below %d", r.First, minSNATPort).or("write a range from %d on, such as 1024-32767", minSNATPort)
	}
	v.PortRange = r.PortRange
	return problem{}
}

// snatFamily reports an address that no source of a workload can be translated to.
func (b *builder) snatFamily(v val[snat], have families) {
	if to := v.v.Address; to.IsValid() && have&familyOf(to) == 0 {
		b.add(v.at, bad("%s is an %s address, and the workload has none of that family", to, familyOf(to)).or("write auto, or an address of its family"))
	}
}

// snatRole reports snat where nothing comes in that would be translated.
func (b *builder) snatRole(r *rawInterface) {
	switch {
	case !r.SNAT.written() || r.Role.v == RoleDownstream || !r.Role.ok && r.Role.written():
	case r.Role.v == RoleWorkload:
		b.add(r.SNAT.at, bad("a workload's snat stands with the workload").or("move it to its entry of workloads:"))
	default:
		b.add(r.SNAT.at, bad("snat is for what comes in by a downstream or from a workload").or("remove it, or write it there"))
	}
}
