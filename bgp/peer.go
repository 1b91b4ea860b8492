package bgp

import (
	"cmp"
	"fmt"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	defaultConnectRetry = 2 * time.Second // GoBGP's least, its default is 120 s
	deferral            = 1               // seconds after Established; see the package comment
	idleAfterReset      = 1               // seconds; GoBGP's default is 30
	defaultHoldTime     = 90 * time.Second
)

// check refuses what GoBGP would take and get wrong on the wire.
func (n Neighbor) check() error {
	switch {
	case !n.Address.IsValid() || n.Address.Is4In6():
		return fmt.Errorf("neighbor %s: address %s: want an IPv4 or IPv6 address", n.Name, n.Address)
	case n.ASN == 0:
		return fmt.Errorf("neighbor %s: its asn is missing", n.Name)
	case len(n.families()) == 0:
		return fmt.Errorf("neighbor %s: no address family", n.Name)
	case n.IPv6 && n.Address.Is4() && !n.NextHop6.Is6():
		return fmt.Errorf("neighbor %s: ipv6-unicast in a session over IPv4 (%s) needs an IPv6 next hop: "+
			"give the interface towards it an IPv6 address", n.Name, n.Address)
	case n.HoldTime != 0 && (n.HoldTime < 3*time.Second || n.HoldTime > 65535*time.Second):
		return fmt.Errorf("neighbor %s: hold time %v: want 3s to 65535s (RFC 4271)", n.Name, n.HoldTime)
	case n.Multihop != 0 && n.TTLSecurity != 0:
		return fmt.Errorf("neighbor %s: multihop and ttl security exclude each other", n.Name)
	case n.RestartTime < 0 || n.RestartTime > 4095*time.Second:
		return fmt.Errorf("neighbor %s: restart time %v: want at most 4095s (RFC 4724)", n.Name, n.RestartTime)
	}
	return nil
}

// families are those that the session negotiates.
func (n Neighbor) families() []bgp.Family {
	out := n.unicast()
	if n.FlowSpec4 {
		out = append(out, bgp.RF_FS_IPv4_UC)
	}
	if n.FlowSpec6 {
		out = append(out, bgp.RF_FS_IPv6_UC)
	}
	return out
}

// unicast are the families whose routes go to the kernel.
func (n Neighbor) unicast() []bgp.Family {
	var out []bgp.Family
	if n.IPv4 {
		out = append(out, bgp.RF_IPv4_UC)
	}
	if n.IPv6 {
		out = append(out, bgp.RF_IPv6_UC)
	}
	return out
}

// peer is n in GoBGP's terms. restarting sets the R bit and the forwarding bits of RFC 4724 in the first OPEN.
func (n Neighbor) peer(password string, restarting bool) *api.Peer {
	graceful := n.RestartTime > 0
	p := &api.Peer{
		Conf:         &api.PeerConf{NeighborAddress: n.Address.String(), PeerAsn: n.ASN, AuthPassword: password},
		Transport:    &api.Transport{RemotePort: uint32(n.Port), PassiveMode: n.Passive},
		EbgpMultihop: &api.EbgpMultihop{Enabled: n.Multihop > 0, MultihopTtl: uint32(n.Multihop)},
		Timers: &api.Timers{Config: &api.TimersConfig{
			ConnectRetry:           seconds(cmp.Or(n.ConnectRetry, defaultConnectRetry)),
			HoldTime:               seconds(cmp.Or(n.HoldTime, defaultHoldTime)),
			KeepaliveInterval:      seconds(n.Keepalive),
			IdleHoldTimeAfterReset: idleAfterReset,
		}},
		GracefulRestart: &api.GracefulRestart{
			Enabled: graceful, RestartTime: uint32(n.RestartTime / time.Second), DeferralTime: deferral,
			LocalRestarting: graceful && restarting,
		},
	}
	if n.TTLSecurity > 0 { // both ends send 255, and each router on the way takes one off
		p.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(n.TTLSecurity)}
	}
	if n.LocalAddress.IsValid() {
		p.Transport.LocalAddress = n.LocalAddress.String()
	}
	for _, f := range n.families() {
		a := &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: apiFamily(f), Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: graceful}},
		}
		p.AfiSafis = append(p.AfiSafis, a)
	}
	return p
}

// overLimit is n with its limit, which ends a session that is beyond it. Too many FlowSpec rules are refused one by one, and cost no session.
func (n Neighbor) overLimit(password string) *api.Peer {
	p := n.peer(password, false)
	for _, a := range p.AfiSafis {
		if family := a.Config.Family; family.Safi == api.Family_SAFI_UNICAST {
			a.PrefixLimits = &api.PrefixLimit{Family: family, MaxPrefixes: n.Limit.enforced()}
		}
	}
	return p
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

// enforced is the limit that a session is shut down for.
func (l PrefixLimit) enforced() uint32 {
	if l.Warn {
		return 0
	}
	return l.Max
}

func apiFamily(f bgp.Family) *api.Family {
	return &api.Family{Afi: api.Family_Afi(f.Afi()), Safi: api.Family_Safi(f.Safi())}
}
