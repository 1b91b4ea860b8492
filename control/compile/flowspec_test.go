package compile

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"sluice/bgp/flowspec"
	"sluice/bgp/flowspec/flowspectest"
	"sluice/xdp"
	"sluice/xdp/classify"
)

// classified is a packet as the classifier sees it.
func classified(p flowspec.Packet) classify.Packet {
	icmp := p.Protocol == 1 && p.Dst.Is4() || p.Protocol == 58 && p.Dst.Is6()
	return classify.Packet{
		Src: p.Src, Dst: p.Dst, Protocol: p.Protocol, SrcPort: p.SrcPort, DstPort: p.DstPort,
		HasPorts: p.Transport && (p.Protocol == 6 || p.Protocol == 17 || p.Protocol == 132), TCPFlags: uint8(p.TCPFlags),
		HasICMP: p.Transport && icmp, ICMPType: p.ICMPType, ICMPCode: p.ICMPCode,
		Fragment: p.Later || p.More, NonFirst: p.Later, Length: int(p.Length), DSCP: p.DSCP,
	}
}

// dropping are the rules of a filter for each of its protocols.
func dropping(f xdp.FlowSpecFilter) (out []classify.Rule) {
	for _, r := range f.Rules {
		r.ID, r.Action = 1, classify.Drop
		if f.Protocols == nil {
			out = append(out, r)
		}
		for _, protocol := range f.Protocols {
			r.Protocol = int(protocol)
			out = append(out, r)
		}
	}
	return out
}

func policyOf(rules []classify.Rule) classify.Policy {
	return classify.Policy{Name: "flowspec", Rules: rules, Default: classify.Continue}
}

// What a rule matches, its translation does, by the classifier's model and by its tables.
func TestFlowSpecTranslationMatchesWhatTheRuleDoes(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	refused, never, hits := 0, 0, 0
	const rounds = 4000
	for round := range rounds {
		f := [...]flowspec.Family{flowspec.IPv4, flowspec.IPv6}[rng.IntN(2)]
		rule := flowspectest.Rule(rng, f)
		got, err := TranslateFlowSpec(rule, []flowspec.Action{{Kind: flowspec.RateBytes}}, nil)
		if err != nil {
			if refused++; !strings.HasPrefix(err.Error(), "FlowSpec rule "+rule.String()+": ") {
				t.Fatalf("%v does not name the rule %s", err, rule)
			}
			continue
		}
		if len(got.Rules) == 0 {
			never++
		}
		policy := policyOf(dropping(got))
		var tables *classify.Tables
		if round%20 == 0 { // as dear as a thousand packets
			if tables, err = classify.Compile([]classify.Policy{policy}); err != nil {
				t.Fatalf("%s: %v", rule, err)
			}
		}
		for range 100 {
			p := flowspectest.Packet(rng, f)
			want := rule.Match(p)
			if want {
				hits++
			}
			d := classify.Judge(policy, classified(p))
			if (d.Action == classify.Drop) != want {
				t.Fatalf("%s matches %+v: %v; its translation %+v says %+v", rule, p, want, got, d)
			}
			if tables != nil {
				if e := tables.Eval(0, classified(p)); e.Action != d.Action {
					t.Fatalf("%s and %+v: the tables say %+v, the model %+v", rule, p, e, d)
				}
			}
		}
	}
	t.Logf("%d of %d rules refused, %d match nothing, %d hits of %d packets", refused, rounds, never, hits, 100*(rounds-refused))
	if refused > rounds*2/3 || hits < rounds {
		t.Error("the generated rules prove little")
	}
}

func TestWhatXDPCannotSayIsNamed(t *testing.T) {
	numeric := func(t flowspec.Type, op uint8, values ...uint64) flowspec.Component {
		c := flowspec.Component{Type: t}
		for _, v := range values {
			c.Terms = append(c.Terms, flowspec.NewTerm(op, v))
		}
		return c
	}
	manyPorts := func(of flowspec.Type) flowspec.Component {
		var odd []uint64
		for v := uint64(1); v < 40; v += 2 {
			odd = append(odd, v)
		}
		return numeric(of, flowspec.Equal, odd...)
	}
	offset, err := flowspec.Parse(flowspec.IPv6, []byte{1, 72, 64, 0x12})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		family     flowspec.Family
		components []flowspec.Component
		actions    []flowspec.Action
		want       string
	}{
		{6, offset.Components, nil, "XDP cannot look behind an offset of an address: dst ::1200:0:0:0/72 offset 64"},
		{6, []flowspec.Component{numeric(flowspec.FlowLabel, flowspec.Equal, 7)}, nil, "XDP does not look at flow labels: label = 7"},
		{6, []flowspec.Component{numeric(flowspec.FlowLabel, flowspec.Greater|flowspec.Equal, 0)}, nil, ""},
		{4, []flowspec.Component{numeric(flowspec.Fragment, 0, 1)}, nil, `XDP does not look at the flag "don't fragment": fragment dont-fragment`},
		{6, []flowspec.Component{numeric(flowspec.Fragment, flowspec.Not, 1)}, nil, ""}, // IPv6 has none
		{4, []flowspec.Component{numeric(flowspec.Fragment, 0, 8)}, nil,
			"XDP does not tell the last fragment from those in the middle: fragment last-fragment"},
		{4, []flowspec.Component{numeric(flowspec.Fragment, 0, 10)}, nil, ""}, // is-fragment holds of the last as well
		{4, []flowspec.Component{numeric(flowspec.TCPFlags, 0, 0x100)}, nil, "XDP does not look at the bits beside the data offset: tcp flags 0x100"},
		{4, []flowspec.Component{numeric(flowspec.TCPFlags, 0, 0xf002)}, nil, ""},
		{6, []flowspec.Component{numeric(flowspec.Length, flowspec.Equal, 65535)}, nil,
			"XDP does not tell lengths from 65535 bytes on apart: length = 65535"},
		{4, []flowspec.Component{numeric(flowspec.Length, flowspec.Equal, 65535)}, nil, ""},
		{6, []flowspec.Component{numeric(flowspec.Length, flowspec.Greater, 1000)}, nil, ""},
		{4, []flowspec.Component{numeric(flowspec.Protocol, flowspec.Less|flowspec.Greater, 6)}, nil, ""},
		{4, []flowspec.Component{manyPorts(flowspec.DestinationPort), manyPorts(flowspec.SourcePort)}, nil,
			"it takes 400 table entries, at most 256 are allowed: use fewer alternatives"},
		{4, nil, []flowspec.Action{{Kind: flowspec.Redirect, Target: "65000:100"}}, "no socket is configured for it (bgp.flowspec.redirect): redirect 65000:100"},
		{4, nil, []flowspec.Action{{Kind: flowspec.RedirectIP, Target: "192.0.2.1"}}, "no socket is configured for it (bgp.flowspec.redirect): redirect to 192.0.2.1"},
		{4, nil, []flowspec.Action{{Kind: flowspec.RedirectIP, Target: "192.0.2.9", Copy: true}}, "XDP copies no packets: copy to 192.0.2.9"},
		{4, nil, []flowspec.Action{{Kind: flowspec.Redirect, Target: "65000:100"}, {Kind: flowspec.RateBytes}}, ""}, // discarded, wherever to
		{4, nil, []flowspec.Action{{Kind: flowspec.RateBytes, Rate: 100}}, "100 bytes per second are fewer than XDP can count: at least 125"},
		{4, nil, []flowspec.Action{{Kind: flowspec.RatePackets, Rate: 0.25}}, "0.25 packets per second are fewer than XDP can count: at least 1"},
	} {
		rule := flowspec.Rule{Family: c.family, Components: c.components}
		want := c.want
		if want != "" {
			want = "FlowSpec rule " + rule.String() + ": " + want
		}
		got := ""
		if _, err := TranslateFlowSpec(rule, c.actions, scrubbers); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s, %s: %q, want %q", rule, flowspec.ActionsText(c.actions), got, want)
		}
	}
}

// scrubbers are the sockets of redirects.
var scrubbers = map[string]string{"65000:7": "scrub", "192.0.2.9": "other"}

func TestFlowSpecActionsInTheOverlay(t *testing.T) {
	rule := flowspec.Rule{Family: flowspec.IPv4, Components: []flowspec.Component{
		{Type: flowspec.Port, Terms: []flowspec.Term{flowspec.NewTerm(flowspec.Equal, 53)}}}}
	dscp := uint8(46)
	type actions = []flowspec.Action
	for _, c := range []struct {
		actions actions
		want    xdp.FlowSpecFilter
	}{
		{nil, xdp.FlowSpecFilter{}},
		{actions{{Kind: flowspec.RatePackets}}, xdp.FlowSpecFilter{Drop: true}},
		{actions{{Kind: flowspec.Sample}, {Kind: flowspec.GoOn}, {Kind: flowspec.RateBytes}}, xdp.FlowSpecFilter{Drop: true, Sample: true}},
		{actions{{Kind: flowspec.Sample}, {Kind: flowspec.GoOn}}, xdp.FlowSpecFilter{GoesOn: true, Sample: true}},
		{actions{{Kind: flowspec.Redirect, Target: "65000:7"}}, xdp.FlowSpecFilter{Socket: "scrub"}},
		{actions{{Kind: flowspec.RedirectIP, Target: "192.0.2.9"}, {Kind: flowspec.RatePackets, Rate: 100}},
			xdp.FlowSpecFilter{Socket: "other", Packets: &classify.Limiter{Rate: 100, Burst: 100}}},
		{actions{{Kind: flowspec.Mark, DSCP: dscp}}, xdp.FlowSpecFilter{DSCP: &dscp}},
		{actions{{Kind: flowspec.RateBytes, Rate: 125000}, {Kind: flowspec.GoOn}},
			xdp.FlowSpecFilter{GoesOn: true, Bytes: &classify.Limiter{Rate: 1000000, Burst: 125000, Bits: true}}},
		{actions{{Kind: flowspec.RateBytes, Rate: 1000}, {Kind: flowspec.RatePackets, Rate: 100}},
			xdp.FlowSpecFilter{Bytes: &classify.Limiter{Rate: 8000, Burst: 65536, Bits: true}, Packets: &classify.Limiter{Rate: 100, Burst: 100}}},
		{actions{{Kind: flowspec.RateBytes, Rate: 1e20}},
			xdp.FlowSpecFilter{Bytes: &classify.Limiter{Rate: classify.MaxBitRate, Burst: classify.MaxBitRate / 8, Bits: true}}},
	} {
		got, err := TranslateFlowSpec(rule, c.actions, scrubbers)
		if err != nil || len(got.Rules) != 2 || len(got.Protocols) != 2 { // of TCP and UDP, to and from the port
			t.Errorf("%s: %+v, %v", flowspec.ActionsText(c.actions), got, err)
			continue
		}
		if got.Rules, got.Protocols = nil, nil; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", flowspec.ActionsText(c.actions), got, c.want)
		}
	}
}
