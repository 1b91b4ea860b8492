package daemon

import (
	"encoding/json"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"sluice/control/api"
	"sluice/control/config"
	"sluice/control/tunnel"
	"sluice/crypto/ike"
	"sluice/crypto/ipsec"
	"sluice/crypto/wireguard"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	keyOne = "EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8="
	keyTwo = "CCESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8="
)

// world is two tunnels of one peer each that are well: one of WireGuard, and one of IPsec with the keying given.
func world(keying string) tunnelFacts {
	at := netip.MustParseAddrPort("198.51.100.7:51820")
	prefix := []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}
	probe := func() *tunnel.ProbeStatus {
		return &tunnel.ProbeStatus{To: netip.MustParseAddr("10.200.0.0"), Sent: 100, Lost: 2, Last: 3 * time.Millisecond, Median: 2 * time.Millisecond}
	}
	return tunnelFacts{
		now:    noon,
		staged: func(file string) string { return "next of " + file },
		conf: []config.Tunnel{
			{Name: "w", Type: config.TypeWireGuard, Local: netip.MustParseAddrPort("198.18.0.2:51820"), PrivateKeyFile: "w.key", Strict: true, ClampMSS: true,
				Peers: []config.Peer{{Name: "a", Endpoints: []config.Endpoint{{Host: "198.51.100.7", Addr: at.Addr(), Port: 51820}}, PublicKeys: []string{keyOne, keyTwo},
					Prefixes: prefix, Routes: true, Metric: 100}}},
			{Name: "i", Type: config.TypeIPsec, Local: netip.MustParseAddrPort("198.18.0.2:0"),
				IPsec: &config.IPsec{Keying: keying, ID: "edge", Encapsulation: "none", Rekey: 24 * time.Hour},
				Peers: []config.Peer{{Name: "b", ID: "muc", Endpoints: []config.Endpoint{{Host: "198.51.100.8", Addr: netip.MustParseAddr("198.51.100.8")}},
					Prefixes: prefix, Routes: true}}},
		},
		wireguard: []wireguard.TunnelStatus{{Name: "w", Backend: "userspace", Running: true, ListenPort: 51820, MTU: 1420, PublicKey: "own", Peers: []wireguard.PeerStatus{
			{Name: "a", PublicKey: keyOne, Endpoint: at.String(), LastHandshake: noon.Add(-time.Minute), RxBytes: 10, TxBytes: 20},
			{Name: "a", PublicKey: keyTwo, Endpoint: at.String(), TxBytes: 148},
		}}},
		ipsec: []ipsec.TunnelStatus{{Name: "i", Keying: ipsec.Keying(keying), Running: true, Local: "198.18.0.2", Encapsulation: ipsec.None, MTU: 1446, IfID: 7, Peers: []ipsec.PeerStatus{
			{Name: "b", ID: "muc", Endpoint: "198.51.100.8", State: "up", Epoch: 8, SPI: 0xa1, SPIsIn: []uint32{0xb1, 0xb2}, ESN: true, Begun: noon.Add(-time.Hour),
				Sequence: 5, PeerEpoch: 3, LastHeard: noon.Add(-time.Second), TxPackets: 5, TxBytes: 500, RxPackets: 4, RxBytes: 400, Forged: 1, Replayed: 2},
		}}},
		watched: []tunnel.Status{
			{Name: "w", Underlay: 1500, Peers: []tunnel.PeerStatus{{Name: "a", Endpoint: at, From: "198.51.100.7:51820", Heard: noon.Add(-2 * time.Second), Probe: probe()}}},
			{Name: "i", Peers: []tunnel.PeerStatus{{Name: "b", Endpoint: netip.MustParseAddrPort("198.51.100.8:0"), From: "198.51.100.8", Probe: probe()}}},
		},
	}
}

func TestTunnelsOfBothTypesHaveOneShape(t *testing.T) {
	got := world(config.KeyingStatic).shown()
	prefix := []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}
	probe := &api.TunnelProbe{Target: netip.MustParseAddr("10.200.0.0"), Sent: 100, Lost: 2, RTT: 0.003, MedianRTT: 0.002}
	want := []api.Tunnel{
		{Name: "w", Type: "wireguard", Backend: "userspace", Interface: "w", Running: true, Addresses: []netip.Prefix{}, MTU: 1420, Underlay: 1500, ClampMSS: true, Strict: true,
			Local: "198.18.0.2:51820", ListenPort: 51820, PublicKey: "own", StagedPublicKey: "next of w.key", Peers: []api.TunnelPeer{
				{Name: "a", State: api.PeerUp, Endpoint: "198.51.100.7:51820", EndpointFrom: "198.51.100.7:51820", Endpoints: []string{"198.51.100.7:51820"},
					LastHandshake: noon.Add(-time.Minute), LastHeard: noon.Add(-2 * time.Second), RxBytes: 10, TxBytes: 168, Prefixes: prefix, Metric: 100,
					Routes: api.RoutesInstalled, Probe: probe, PublicKey: keyOne, PublicKeys: []string{keyOne, keyTwo}}}},
		{Name: "i", Type: "ipsec", Backend: "static", Interface: "i", Running: true, Addresses: []netip.Prefix{}, MTU: 1446, Local: "198.18.0.2", ID: "edge", Encapsulation: "none",
			InterfaceID: 7, Peers: []api.TunnelPeer{
				{Name: "b", State: api.PeerUp, Endpoint: "198.51.100.8", EndpointFrom: "198.51.100.8", Endpoints: []string{"198.51.100.8"}, LastHeard: noon.Add(-time.Second),
					RxBytes: 400, TxBytes: 500, Prefixes: prefix, Routes: api.RoutesInstalled, Probe: probe, ID: "muc", SA: &api.TunnelSA{
						SPIOut: "000000a1", SPIIn: []string{"000000b1", "000000b2"}, Begun: noon.Add(-time.Hour), Epoch: 8, PeerEpoch: 3, RekeyIn: 23 * 3600, ESN: true, Sequence: 5,
						HeadRoom: math.MaxUint64 - 5, RxPackets: 4, TxPackets: 5, Forged: 1, Replayed: 2}}}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("tunnels (-want +got):\n%s", diff)
	}
}

func TestTheStateOfAPeerHasAReason(t *testing.T) {
	for _, c := range []struct {
		name   string
		of     int    // 0: WireGuard, 1: IPsec
		keying string // of IPsec
		change func(f *tunnelFacts, w *tunnel.PeerStatus)
		state  api.PeerState
		why    string
		routes string
	}{
		{"probes fail", 0, "", func(_ *tunnelFacts, w *tunnel.PeerStatus) { w.Probe.Down, w.Why = true, "probes are lost" }, api.PeerDown, "probes are lost", api.RoutesWithdrawn},
		{"a device that does not run", 0, "", func(f *tunnelFacts, _ *tunnel.PeerStatus) { f.wireguard[0].Running = false }, api.PeerDown, "the tunnel does not run", api.RoutesInstalled},
		{"no device", 0, "", func(f *tunnelFacts, _ *tunnel.PeerStatus) { f.wireguard = nil }, api.PeerDown, "the tunnel does not run", api.RoutesInstalled},
		{"held until its first answer", 0, "", func(_ *tunnelFacts, w *tunnel.PeerStatus) { w.Probe.Held, w.Why = true, "its routes wait" }, api.PeerConnecting, "its routes wait", api.RoutesWithdrawn},
		{"a session, and no probe answered", 0, "", func(_ *tunnelFacts, w *tunnel.PeerStatus) { w.Probe.Sent, w.Probe.Lost = 14, 14 }, api.PeerConnecting, "have not been answered yet", api.RoutesInstalled},
		{"no answer", 0, "", func(_ *tunnelFacts, w *tunnel.PeerStatus) { w.Silent, w.Why = 20*time.Second, "no answer for 20s" }, api.PeerConnecting, "no answer for 20s", api.RoutesInstalled},
		{"down, the session is over", 0, "", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			w.Heard = noon.Add(-8 * time.Minute)
			f.wireguard[0].Peers[0].LastHandshake, w.Probe.Down, w.Why, w.Unresolved = noon.Add(-10*time.Minute), true, "probes are lost", "hub.example does not resolve"
		}, api.PeerDown, "no handshake for 600 s: check the UDP port, the public keys, the preshared key (there is no preshared key at this end); probes are lost; hub.example does not resolve", api.RoutesWithdrawn},
		{"down, never a handshake, with a preshared key", 0, "", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			w.Heard, f.wireguard[0].Peers, f.conf[0].Peers[0].PresharedKeyFile, w.Probe.Down, w.Why = time.Time{}, nil, "a.psk", true, "probes are lost"
		}, api.PeerDown, "no handshake yet: check the UDP port, the public keys, the preshared key; probes are lost", api.RoutesWithdrawn},
		{"probes fail, though it is heard", 0, "", func(_ *tunnelFacts, w *tunnel.PeerStatus) {
			w.Probe.Down, w.Why, w.Doubt = true, "probes are lost", "the peer is heard"
		}, api.PeerDown, "probes are lost; the peer is heard", api.RoutesWithdrawn},
		{"its handshakes come to nothing", 0, "", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			f.wireguard[0].Peers, f.conf[0].Peers[0].PresharedKeyFile, w.Probe.Down, w.Why, w.Doubt = nil, "a.psk", true, "probes are lost", "the peer is heard"
		}, api.PeerDown, "no handshake yet, but it calls, so the public keys fit: check the preshared key, and that UDP gets back to it; probes are lost", api.RoutesWithdrawn},
		{"its handshakes come to nothing any more, and nobody probes it", 0, "", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			f.wireguard[0].Peers[0].LastHandshake, w.Probe = noon.Add(-5*time.Minute), nil
		}, api.PeerConnecting, "no handshake for 300 s, but it calls, so the public keys fit: check the preshared key, and that UDP gets back to it (there is no preshared key at this end)",
			api.RoutesInstalled},
		{"heard in what was left of its session", 0, "", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			f.wireguard[0].Peers[0].LastHandshake, w.Heard, w.Probe.Down = noon.Add(-200*time.Second), noon.Add(-30*time.Second), true
		}, api.PeerDown, "no handshake for 200 s: check", api.RoutesWithdrawn},
		{"idle without a probe", 0, "", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			w.Heard, w.Probe, f.wireguard[0].Peers[0].LastHandshake = noon.Add(-8*time.Minute), nil, noon.Add(-10*time.Minute)
		}, api.PeerUnknown, "idle: the last handshake was 10m0s ago", api.RoutesInstalled},
		{"never spoken to", 0, "", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			w.Heard, w.Probe, f.wireguard[0].Peers = time.Time{}, nil, nil
		}, api.PeerUnknown, "nothing was sent to it", api.RoutesInstalled},
		{"never answered", 0, "", func(f *tunnelFacts, _ *tunnel.PeerStatus) { f.wireguard[0].Peers = nil }, api.PeerConnecting, "no handshake yet", api.RoutesInstalled},
		{"without an endpoint", 0, "", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			*w, f.wireguard[0].Peers, f.conf[0].Peers[0].Endpoints = tunnel.PeerStatus{Name: "a"}, nil, nil
		}, api.PeerUnknown,
			"no endpoint is known: it has to call first", api.RoutesInstalled},
		{"whose name does not resolve", 0, "", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			*w, f.wireguard[0].Peers = tunnel.PeerStatus{Name: "a", Unresolved: "hub.example does not resolve"}, nil
		}, api.PeerUnknown, "no endpoint is known yet; hub.example does not resolve", api.RoutesInstalled},
		{"without routes", 0, "", func(f *tunnelFacts, _ *tunnel.PeerStatus) { f.conf[0].Peers[0].Routes = false }, api.PeerUp, "", api.RoutesNone},

		{"static, probes fail", 1, "static", func(_ *tunnelFacts, w *tunnel.PeerStatus) { w.Probe.Down, w.Why = true, "probes are lost" }, api.PeerDown, "probes are lost", api.RoutesWithdrawn},
		{"static, without keys", 1, "static", func(f *tunnelFacts, _ *tunnel.PeerStatus) { f.ipsec[0].Peers[0].Epoch = 0 }, api.PeerDown, "no keys are set", api.RoutesInstalled},
		{"static, keys cannot be read", 1, "static", func(f *tunnelFacts, _ *tunnel.PeerStatus) {
			f.ipsec[0].Peers[0].Epoch, f.ipsec[0].Peers[0].Why = 0, "no such file"
		},
			api.PeerUnknown, "no such file", api.RoutesInstalled},
		{"static, heard, not probed", 1, "static", func(_ *tunnelFacts, w *tunnel.PeerStatus) { w.Probe = nil }, api.PeerUp, "", api.RoutesInstalled},
		{"static, not heard, not probed", 1, "static", func(f *tunnelFacts, w *tunnel.PeerStatus) { w.Probe, f.ipsec[0].Peers[0].LastHeard = nil, time.Time{} },
			api.PeerUnknown, "give the tunnel `health.probe`", api.RoutesInstalled},
		{"static, silent, not probed", 1, "static", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			w.Probe, f.ipsec[0].Peers[0].LastHeard = nil, noon.Add(-time.Hour)
		},
			api.PeerUnknown, "nothing was heard of it for 1h0m0s", api.RoutesInstalled},
		{"static, left out", 1, "static", func(f *tunnelFacts, _ *tunnel.PeerStatus) { f.ipsec[0].Peers = nil }, api.PeerDown, "no endpoint that is known", api.RoutesInstalled},
		{"static, no interface", 1, "static", func(f *tunnelFacts, _ *tunnel.PeerStatus) { f.ipsec[0].Running = false }, api.PeerDown, "the tunnel does not run", api.RoutesInstalled},
		{"ike, up", 1, "ike", func(*tunnelFacts, *tunnel.PeerStatus) {}, api.PeerUp, "", api.RoutesInstalled},
		{"ike, held until its first answer", 1, "ike", func(_ *tunnelFacts, w *tunnel.PeerStatus) { w.Probe.Held, w.Why = true, "its routes wait" }, api.PeerConnecting, "its routes wait", api.RoutesWithdrawn},
		{"ike, up, and no probe answered", 1, "ike", func(_ *tunnelFacts, w *tunnel.PeerStatus) { w.Probe.Sent, w.Probe.Lost = 14, 14 }, api.PeerConnecting, "charon has a session with it, but", api.RoutesInstalled},
		{"ike, down, a name does not resolve", 1, "ike", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			f.ipsec[0].Peers[0].State, w.Unresolved = "down", "hub.example does not resolve"
		}, api.PeerDown, "(see charon's log); hub.example does not resolve", api.RoutesInstalled},
		{"ike, down", 1, "ike", func(f *tunnelFacts, _ *tunnel.PeerStatus) { f.ipsec[0].Peers[0].State = "down" }, api.PeerDown, "charon has no session", api.RoutesInstalled},
		{"ike, down, and probes fail", 1, "ike", func(f *tunnelFacts, w *tunnel.PeerStatus) {
			f.ipsec[0].Peers[0].State, f.ipsec[0].Peers[0].Why, w.Probe.Down, w.Why = "down", "it has another preshared key", true, "probes are lost"
		}, api.PeerDown, "it has another preshared key; probes are lost", api.RoutesWithdrawn},
		{"ike, connecting", 1, "ike", func(f *tunnelFacts, _ *tunnel.PeerStatus) { f.ipsec[0].Peers[0].State = "connecting" }, api.PeerConnecting, "negotiating", api.RoutesInstalled},
		{"ike, charon is away", 1, "ike", func(f *tunnelFacts, _ *tunnel.PeerStatus) { f.ipsec[0].Peers[0].State = "unknown" }, api.PeerUnknown, "charon does not answer", api.RoutesInstalled},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := world(c.keying)
			c.change(&f, &f.watched[c.of].Peers[0])
			p := f.shown()[c.of].Peers[0]
			if p.State != c.state || !strings.Contains(p.Why, c.why) || (c.why == "") != (p.Why == "") || p.Routes != c.routes {
				t.Errorf("state %s, why %q, routes %s; want %s, %q, %s", p.State, p.Why, p.Routes, c.state, c.why, c.routes)
			}
		})
	}
}

func TestAPeerThatIsUpShowsANameThatDoesNotResolve(t *testing.T) {
	f := world(config.KeyingStatic)
	f.conf[0].Peers[0].PresharedKeyFile = "/keys/a.psk"
	for i := range f.watched {
		f.watched[i].Peers[0].Unresolved = "hub.example does not resolve"
	}
	for _, tun := range f.shown() {
		if p := tun.Peers[0]; p.State != api.PeerUp || p.Why != "" || p.Note != "hub.example does not resolve" {
			t.Errorf("%s: %s, why %q, note %q", tun.Name, p.State, p.Why, p.Note)
		}
	}
	if got := f.shown()[0].Peers[0].PresharedKeyFile; got != "/keys/a.psk" {
		t.Errorf("preshared key %q", got)
	}
}

func TestWithoutESNSequenceNumbersEndAt32Bits(t *testing.T) {
	f := world("ike")
	f.ipsec[0].Peers[0].ESN = false
	if sa := f.shown()[1].Peers[0].SA; sa.ESN || sa.HeadRoom != math.MaxUint32-5 || sa.RekeyIn != 0 {
		t.Errorf("%+v", sa)
	}
}

func TestAPeerThatRoamedIsShownWhereItIs(t *testing.T) {
	f := world("static")
	f.wireguard[0].Peers[0].Endpoint = "203.0.113.9:40000"
	if p := f.shown()[0].Peers[0]; p.Endpoint != "203.0.113.9:40000" || p.EndpointFrom != "" {
		t.Errorf("%+v", p)
	}
	f.ipsec[0].Peers[0].Waits = "203.0.113.9"
	if p := f.shown()[1].Peers[0]; p.Endpoint != "198.51.100.8" || p.EndpointNext != "203.0.113.9" {
		t.Errorf("one that waits for its epoch: %+v", p)
	}
}

func TestATunnelThatNoRevisionNamesIsShown(t *testing.T) {
	f := world("static")
	f.conf, f.watched = nil, nil
	var names []string
	for _, tun := range f.shown() {
		names = append(names, tun.Name+" "+tun.Type+" "+tun.Why)
	}
	if want := []string{"w wireguard the live revision does not name it", "i ipsec the live revision does not name it"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

func TestMetricsOfTunnels(t *testing.T) {
	list := world("static").shown()
	list[0].Peers[0].State, list[0].Peers[0].Routes = api.PeerDown, api.RoutesWithdrawn
	got := gathered(t, tunnelMetrics(list))
	want := strings.Split(strings.TrimSpace(`
tunnel_bytes_total{received,a,w} 10
tunnel_bytes_total{received,b,i} 400
tunnel_bytes_total{sent,a,w} 168
tunnel_bytes_total{sent,b,i} 500
tunnel_epoch{heard,b,i} 3
tunnel_epoch{sent,b,i} 8
tunnel_errors_total{forged,b,i} 1
tunnel_errors_total{replayed,b,i} 2
tunnel_last_handshake_seconds{a,w} 1772366340
tunnel_last_heard_seconds{a,w} 1772366398
tunnel_last_heard_seconds{b,i} 1772366399
tunnel_mtu_bytes{i} 1446
tunnel_mtu_bytes{w} 1420
tunnel_packets_total{received,b,i} 4
tunnel_packets_total{sent,b,i} 5
tunnel_peer_up{a,down,w} 0
tunnel_peer_up{b,up,i} 1
tunnel_probe_loss_ratio{a,w} 0.02
tunnel_probe_loss_ratio{b,i} 0.02
tunnel_probe_rtt_seconds{last,a,w} 0.003
tunnel_probe_rtt_seconds{last,b,i} 0.003
tunnel_probe_rtt_seconds{median,a,w} 0.002
tunnel_probe_rtt_seconds{median,b,i} 0.002
tunnel_routes_withdrawn{a,w} 1
tunnel_routes_withdrawn{b,i} 0
tunnel_sa_age_seconds{b,i} 3600
tunnel_sequence_headroom{b,i} 18446744073709552000
tunnel_up{static,i,ipsec} 1
tunnel_up{userspace,w,wireguard} 1
`), "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// gathered is a line for each metric, sorted.
func gathered(t *testing.T, c prometheus.Collector) (lines []string) {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			value, err := json.Marshal(m.GetGauge().GetValue() + m.GetCounter().GetValue())
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, strings.TrimPrefix(f.GetName(), "sluice_")+"{"+strings.Join(labels, ",")+"} "+string(value))
		}
	}
	slices.Sort(lines)
	return lines
}

// tunnelMetrics collects those of a list, at noon.
type tunnelMetrics []api.Tunnel

func (tunnelMetrics) Describe(chan<- *prometheus.Desc) {}

func (m tunnelMetrics) Collect(out chan<- prometheus.Metric) { collectTunnels(m, noon, out) }

func TestEpochsThatChangeAreTold(t *testing.T) {
	var told []string
	tell := func(e tunnel.Event) { told = append(told, string(e.Kind)+" "+e.Tunnel+" "+e.Text) }
	var e epochs
	look := func(sent, heard uint64) {
		e.look([]ipsec.TunnelStatus{
			{Name: "i", Keying: ipsec.Static, Peers: []ipsec.PeerStatus{{Name: "b", Epoch: sent, PeerEpoch: heard}}},
			{Name: "k", Keying: ipsec.IKE, Peers: []ipsec.PeerStatus{{Name: "b", Epoch: sent}}},
		}, tell)
	}
	look(0, 0)
	look(7, 0)
	look(7, 3) // heard for the first time
	if told != nil {
		t.Errorf("what is new is told as a change: %q", told)
	}
	look(8, 3)
	look(8, 5)
	look(8, 5)
	want := []string{"epoch i peer b is sent to in epoch 8, before in 7", "epoch i peer b sends in epoch 5, before in 3"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func TestEventsOfCharonAreTold(t *testing.T) {
	for _, c := range []struct {
		event ipsec.Event
		want  tunnel.Event
		told  bool
	}{
		{ipsec.Event{Kind: ike.CharonGone, Err: errors.New("charon does not answer at /s")}, tunnel.Event{Kind: "charon-gone", Text: "charon does not answer at /s"}, true},
		{ipsec.Event{Kind: ike.CharonBack}, tunnel.Event{Kind: "charon-back", Text: "charon answers, and has all that was loaded"}, true},
		{ipsec.Event{Kind: ike.PeerUp, Tunnel: "k", Peer: "b"}, tunnel.Event{Kind: "session", Tunnel: "k", Peer: "b", Text: "peer b has a session"}, true},
		{ipsec.Event{Kind: ike.PeerDown, Tunnel: "k", Peer: "b"}, tunnel.Event{Kind: "session", Tunnel: "k", Peer: "b", Text: "peer b has no session any more"}, true},
		{ipsec.Event{Kind: ike.CharonIdle}, tunnel.Event{}, false},
	} {
		got, told := charonNotice(c.event)
		if told != c.told || told && got != c.want {
			t.Errorf("%+v is told as %+v (%v), want %+v", c.event, got, told, c.want)
		}
	}
}
