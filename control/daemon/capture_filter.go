package daemon

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"sluice/control/api"
	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/packet"
)

// captureFilter turns words into numbers, or says everything that is wrong with them.
func (d *Daemon) captureFilter(r api.CaptureRequest) (xdp.CaptureFilter, error) {
	f := xdp.CaptureFilter{Protocol: -1, Port: r.Port, Sample: r.Sample, Snaplen: r.Snaplen}
	var errs [7]error
	f.Reasons, errs[0] = captureReasons(r.Fate, r.Reasons)
	f.Rules, errs[1] = d.captureRules(r.Rules)
	f.Host, errs[2] = captureHost(r.Host)
	f.Ifindex, errs[3] = d.captureInterface(r.Interface)
	f.Hooks, errs[4] = captureHooks(r.Hook)
	if r.Protocol != "" {
		var protocol uint8
		protocol, errs[5] = packet.ParseProtocol(r.Protocol)
		f.Protocol = int(protocol)
	}
	if r.Sample < 0 || r.Snaplen < 0 {
		errs[6] = errors.New("sample and snaplen are not negative")
	}
	return f, errors.Join(errs[:]...)
}

// captureReasons are those of a fate among those asked for; nil is every reason.
func captureReasons(fate string, labels []string) ([]abi.Reason, error) {
	if fate != "" && fate != api.FateDropped && fate != api.FatePassed {
		return nil, fmt.Errorf("fate %q: want %s or %s", fate, api.FateDropped, api.FatePassed)
	}
	if fate == "" && len(labels) == 0 {
		return nil, nil
	}
	byLabel := map[string]abi.Reason{}
	for r := range abi.ReasonMax {
		byLabel[r.String()] = r
	}
	out := []abi.Reason{}
	var errs []error
	for _, label := range labels {
		r, ok := byLabel[label]
		switch {
		case !ok:
			errs = append(errs, unknown("reason", label, slices.Sorted(maps.Keys(byLabel)), "`sluice show reasons` lists those that were met"))
		case !hasFate(r, fate):
			errs = append(errs, fmt.Errorf("no packet with the reason %s is %s: its fate is %s", r, fate, r.Fate()))
		default:
			out = append(out, r)
		}
	}
	for r := range abi.ReasonMax {
		if len(labels) == 0 && hasFate(r, fate) {
			out = append(out, r)
		}
	}
	return out, errors.Join(errs...)
}

func hasFate(r abi.Reason, fate string) bool {
	return fate == "" || (fate == api.FateDropped) == (r.Fate() == abi.FateDrop)
}

// namedRule is a rule with the policy that it is of.
type namedRule struct {
	classify.Rule
	policy string
}

// rulesByName are the rules of the live revision, as policy/rule.
func (d *Daemon) rulesByName() map[string]namedRule {
	out := map[string]namedRule{}
	for _, p := range d.policies() {
		for _, r := range p.Rules {
			out[p.Name+"/"+r.Name] = namedRule{r, p.Name}
		}
	}
	return out
}

func (d *Daemon) captureRules(names []string) ([]uint32, error) {
	if len(names) == 0 {
		return nil, nil
	}
	rules := d.rulesByName()
	var (
		ids  []uint32
		errs []error
	)
	for _, name := range names {
		if r, ok := rules[name]; ok {
			ids = append(ids, r.ID)
		} else {
			errs = append(errs, unknown("rule", name, slices.Sorted(maps.Keys(rules)), "`sluice show policy` lists them, as policy and name"))
		}
	}
	if len(ids) > abi.CaptureRules {
		errs = append(errs, fmt.Errorf("%d rules: a capture takes %d at most", len(ids), abi.CaptureRules))
	}
	return ids, errors.Join(errs...)
}

// captureHost takes an address for itself alone; none is none.
func captureHost(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return p, fmt.Errorf("host %q: want an address or a prefix, such as 192.0.2.7 or 2001:db8::/32", text)
	}
	return p, nil
}

// captureInterface finds an interface that has programs of ours.
func (d *Daemon) captureInterface(name string) (int, error) {
	if name == "" {
		return 0, nil
	}
	want := d.liveDesired()
	if !slices.ContainsFunc(want.XDP.Interfaces, func(i xdp.Interface) bool { return i.Name == name }) &&
		!slices.ContainsFunc(want.TC.Interfaces, func(i tc.Interface) bool { return i.Name == name }) {
		return 0, fmt.Errorf("no program of Sluice's is on %q; `sluice show interfaces` lists those that have one", name)
	}
	device, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return device.Index, nil
}

func captureHooks(name string) ([]abi.Hook, error) {
	if name == "" {
		return nil, nil
	}
	known := hookNames[:abi.HookMax]
	if i := slices.Index(known, name); i >= 0 {
		return []abi.Hook{abi.Hook(i)}, nil
	}
	return nil, fmt.Errorf("hook %q: want one of %s", name, strings.Join(known, ", "))
}

// unknown is the error for a word that is none of those that are known.
func unknown(what, word string, known []string, help string) error {
	if like := near(word, known); len(like) > 0 {
		return fmt.Errorf("there is no %s %q; near it are %s", what, word, strings.Join(like, ", "))
	}
	return fmt.Errorf("there is no %s %q; %s", what, word, help)
}

// maxNear bounds what is offered for a word that is not known.
const maxNear = 4

// near are the words that have most in common with another one: groups of three letters, but at least a third of them.
func near(word string, known []string) []string {
	common := func(other string) (n int) {
		for i := range max(0, len(word)-2) {
			if strings.Contains(other, word[i:i+3]) {
				n++
			}
		}
		return n
	}
	like := slices.DeleteFunc(slices.Clone(known), func(w string) bool { return common(w) == 0 || 3*common(w) < len(word)-2 })
	slices.SortStableFunc(like, func(a, b string) int {
		return cmp.Or(cmp.Compare(common(b), common(a)), cmp.Compare(len(a), len(b)))
	})
	return like[:min(len(like), maxNear)]
}

// sourceOf reads the source address of a captured packet; invalid where it shows none.
func sourceOf(f xdp.Frame) netip.Addr {
	const ethernet, ip4, ip6 = 14, 12, 8 // where the address stands in the header
	data := f.Data
	if !f.L3 {
		if len(data) < ethernet {
			return netip.Addr{}
		}
		kind := 12
		for len(data) >= kind+6 && (data[kind] == 0x81 || data[kind] == 0x88 && data[kind+1] == 0xa8) {
			kind += 4 // a VLAN tag
		}
		ethertype := binary.BigEndian.Uint16(data[kind:])
		data = data[kind+2:]
		if ethertype != 0x0800 && ethertype != 0x86dd {
			return netip.Addr{}
		}
	}
	switch {
	case len(data) >= ip4+4 && data[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(data[ip4:]))
	case len(data) >= ip6+16 && data[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(data[ip6:]))
	}
	return netip.Addr{}
}
