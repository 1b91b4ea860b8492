package bgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// What Neighbor.FirstAS asks of a path: RFC 4271 section 6.3. A route server (RFC 7947) does not put its AS in front.

// firstAS rejects what begins with another AS than its neighbor's. GoBGP sees a path that begins with a set as one that begins with AS 0.
func (b *policyBuilder) firstAS(neighbors []Neighbor) {
	of := map[uint32][]netip.Addr{}
	for _, n := range neighbors {
		if n.FirstAS {
			of[n.ASN] = append(of[n.ASN], n.Address)
		}
	}
	for _, asn := range slices.Sorted(maps.Keys(of)) {
		name := fmt.Sprintf("first AS %d", asn)
		b.learn = append(b.learn, &api.Statement{
			Name: name,
			Conditions: &api.Conditions{
				NeighborSet: b.neighbors(name, of[asn]),
				AsPathSet:   b.set(api.DefinedType_DEFINED_TYPE_AS_PATH, name, api.MatchSet_TYPE_INVERT, fmt.Sprintf("^%d_", asn)),
			},
			Actions: &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT},
		})
	}
}

// refuses says in the same way why a path of the neighbor is not believed, whatever the filters say; "": it is not refused.
func (n Neighbor) refuses(p *apiutil.Path) string {
	if !n.FirstAS {
		return ""
	}
	want := fmt.Sprintf(", want %d (enforce_first_as)", n.ASN)
	for _, a := range p.Attrs {
		path, ok := a.(*bgp.PathAttributeAsPath)
		if !ok || len(path.Value) == 0 || len(path.Value[0].GetAS()) == 0 {
			continue
		}
		switch first := path.Value[0]; {
		case first.GetType() != bgp.BGP_ASPATH_ATTR_TYPE_SEQ:
			return "first AS in a set" + want
		case first.GetAS()[0] == n.ASN:
			return ""
		default:
			return fmt.Sprintf("first AS %d", first.GetAS()[0]) + want
		}
	}
	return "no AS in the path" + want
}

// countRefused counts what was refused for its first AS. A table that was believed as a whole needs no look.
func (sp *speaker) countRefused(peers map[string]*api.Peer, neighbors []Neighbor, accepted map[believer]uint64) (map[believer]uint64, error) {
	out := map[believer]uint64{}
	for _, n := range neighbors {
		addr := n.Address.String()
		for _, a := range peers[addr].GetAfiSafis() {
			who := believer{addr, apiutil.ToFamily(a.GetConfig().GetFamily())}
			if !n.FirstAS || !slices.Contains(unicastFamilies[:], who.family) || a.GetState().GetReceived() <= accepted[who] {
				continue
			}
			req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: addr, Family: who.family}
			if err := sp.bgp.ListPath(req, func(_ bgp.NLRI, paths []*apiutil.Path) {
				for _, p := range paths {
					if n.refuses(p) != "" {
						out[who]++
					}
				}
			}); err != nil {
				return nil, fmt.Errorf("bgp: count what was refused: %w", err)
			}
		}
	}
	return out, nil
}

func (c *census) refused() map[believer]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.believed.refused.of
}

// judgeAgain takes what a neighbor announced through changed policies.
func (s *Subsystem) judgeAgain(ctx context.Context, n Neighbor) error {
	if err := s.setPolicies(ctx, Op{kind: setNeighbor, neighbor: n}.on(s.have)); err != nil {
		return err
	}
	defer s.speaker.census.judgedAnew()
	s.flows.change(context.Background(), func(t tables) { t.lead(n) })
	return s.reset(ctx, n.Address, api.ResetPeerRequest_DIRECTION_IN)
}
