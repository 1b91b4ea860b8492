package bgp

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// BenchmarkARouteThroughThePolicies is what GoBGP needs for a route of one of four neighbors, from the policies on into its table.
func BenchmarkARouteThroughThePolicies(b *testing.B) {
	for _, c := range []struct {
		name    string
		firstAS bool
	}{{"any first AS", false}, {"its first AS", true}} {
		b.Run(c.name, func(b *testing.B) {
			s := State{ASN: 65010, RouterID: netip.MustParseAddr("198.18.0.2"), Learn: Learn{Accept: []Filter{{PrefixMatch: PrefixMatch{Prefix: netip.MustParsePrefix("0.0.0.0/0"), LE: 24}}}}}
			for i := range 4 {
				s.Neighbors = append(s.Neighbors, Neighbor{Address: neighborAddr(i), ASN: 65000 + uint32(i), FirstAS: c.firstAS})
			}
			g := server.NewBgpServer(server.LoggerOption(slog.New(slog.DiscardHandler), nil))
			go g.Serve()
			defer g.Stop()
			err := g.StartBgp(b.Context(), &api.StartBgpRequest{Global: &api.Global{Asn: s.ASN, RouterId: s.RouterID.String(), ListenPort: -1}})
			if err == nil {
				err = g.SetPolicies(b.Context(), policies(s, newWays()))
			}
			for _, a := range assignments() {
				if err == nil {
					err = g.SetPolicyAssignment(b.Context(), a)
				}
			}
			if err != nil {
				b.Fatal(err)
			}
			hop, _ := bgp.NewPathAttributeNextHop(neighborAddr(3))
			attrs := []bgp.PathAttributeInterface{
				bgp.NewPathAttributeOrigin(originIGP), hop,
				bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{65003, 64500, 64501, 64502})}),
			}
			const most = 1 << 17
			i := 0
			for b.Loop() {
				n := i % most
				nlri, err := bgp.NewIPAddrPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte{10 + byte(n>>16), byte(n >> 8), byte(n), 0}), 24))
				if err == nil {
					_, err = g.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{{Family: bgp.RF_IPv4_UC, Nlri: nlri, Attrs: attrs,
						PeerASN: 65003, PeerID: neighborAddr(3), PeerAddress: neighborAddr(3), IsFromExternal: true}}})
				}
				if err != nil {
					b.Fatal(err)
				}
				i++
			}
			table, err := g.GetTable(b.Context(), &api.GetTableRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: apiFamily(bgp.RF_IPv4_UC)})
			if err != nil || table.NumPath != uint64(min(i, most)) {
				b.Fatalf("of %d routes the table holds %v (%v)", min(i, most), table, err)
			}
		})
	}
}
