package xdp

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/table"
)

// specialise tells the program what it need not look up. The verifier takes out what cannot run then.
func specialise(spec *ebpf.CollectionSpec, g Generation) error {
	ask := [abi.PolicyIngress]uint8{abi.PolicyFailsafe: askOf(g.Failsafe), abi.PolicySystem: askOf(g.System)}
	if err := spec.Variables[ingressVarAsk].Set(ask); err != nil {
		return fmt.Errorf("policies to ask: %w", err)
	}
	if err := spec.Variables[ingressVarSelfBits].Set(table.SelfBits(g.Self)); err != nil {
		return fmt.Errorf("bits of the own addresses: %w", err)
	}
	var children uint8
	if len(g.Children) > 0 {
		children = 1
	}
	if err := spec.Variables[ingressVarHasVlanChildren].Set(children); err != nil {
		return fmt.Errorf("whether VLANs have interfaces: %w", err)
	}
	by := recentBy(g.Policies())
	if err := spec.Variables[ingressVarRecentBy].Set(by); err != nil {
		return fmt.Errorf("key of recent flows: %w", err)
	}
	if by != abi.RecentOff {
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return err
		}
		spec.Maps[ingressMapRecent].MaxEntries = uint32(cpus * abi.RecentFlows)
	}
	return nil
}

// recentBy says what the key of a recent flow needs beside addresses, ports, protocol and interface.
func recentBy(policies []classify.Policy) (by uint8) {
	for i := range policies {
		for j := range policies[i].Rules {
			r := &policies[i].Rules[j]
			for _, one := range []struct {
				asked bool
				flag  uint8
			}{
				{r.TCPMask != 0, abi.RecentTCPFlags}, {r.TTL != 0, abi.RecentTTL}, {r.DSCP != 0, abi.RecentDSCP},
				{r.VLANs != nil, abi.RecentVLAN}, {r.Lengths != nil, abi.RecentLength},
			} {
				if one.asked {
					by |= one.flag
				}
			}
			if r.Shadow {
				return abi.RecentOff
			}
		}
	}
	return by
}

// askOf says when a policy is to be asked: of one that continues by default, only its acting rules matter.
func askOf(p classify.Policy) uint8 {
	shadow := slices.ContainsFunc(p.Rules, func(r classify.Rule) bool { return r.Shadow })
	switch {
	case p.Default != classify.Continue || p.Fragments != classify.FragDefault || shadow:
		return uint8(abi.AskAlways)
	case len(p.Rules) > 0:
		return uint8(abi.AskByKeys)
	}
	return uint8(abi.AskNever)
}
