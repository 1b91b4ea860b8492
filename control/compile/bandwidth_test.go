package compile

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/control/config"
	"sluice/control/host"
	"sluice/tc"
)

const pacedSite = `
interfaces:
  - {name: eth0, role: uplink, addresses: [198.18.0.2/30]}
  - {name: eth1, role: uplink}
  - {name: lan, role: downstream, LAN}
workloads:
  - {name: web, interface: web-1, addresses: [10.0.1.10], WEB}
  - {name: away, interface: web-2, addresses: [10.0.1.11], bandwidth: {egress: 3Mbps}}
`

func TestBandwidthsWaitInFQOnUplinksWhereTheyCan(t *testing.T) {
	const lacks = "this kernel has no fq (module sch_fq, CONFIG_NET_SCH_FQ)"
	for _, c := range []struct {
		name, lan, web string
		lacks          []string // uplinks without
		fq, paced      string
	}{
		{"a workload's and a LAN's", "bandwidth: {egress: 5Gbps}", "bandwidth: {egress: 1Gbps}", nil, "eth0 eth1", "lan 5000000000 web-1 1000000000"},
		{"a workload's that is not there yet is prepared for", "mtu: 1500", "snat: none", nil, "eth0 eth1", ""},
		{"one uplink cannot", "mtu: 1500", "bandwidth: {egress: 1kbps}", []string{"eth1"}, "eth0", "web-1 1000"},
		{"no uplink can", "mtu: 1500", "bandwidth: {egress: 400Gbps}", []string{"eth0", "eth1"}, "", "web-1 400000000000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := parse(t, strings.NewReplacer("LAN", c.lan, "WEB", c.web).Replace(pacedSite))
			if got := LooksAtQueues(cfg, nil); !slices.Equal(got, []string{"eth0", "eth1"}) {
				t.Errorf("it looks at %q", got)
			}
			f := facts("eth0", "eth1", "lan", "web-1")
			f.Host.Queues = map[string]host.Queue{"eth0": {}, "eth1": {}}
			for _, name := range c.lacks {
				f.Host.Queues[name] = host.Queue{NoFQ: lacks}
			}
			d := compile(t, cfg, Runtime{}, f)
			var fq, flags, paced []string
			for _, q := range d.Host.Qdiscs {
				fq = append(fq, q.Link)
			}
			for _, i := range d.TC.Interfaces {
				if i.FQ {
					flags = append(flags, i.Name)
				}
			}
			for _, p := range d.TC.Generation.Paced {
				paced = append(paced, p.Interface, strconv.FormatUint(p.Rate, 10))
			}
			for what, got := range map[string][]string{"the host puts fq on": fq, "tc believes in fq on": flags} {
				if strings.Join(got, " ") != c.fq {
					t.Errorf("%s %q, want %q", what, got, c.fq)
				}
			}
			if got := strings.Join(paced, " "); got != c.paced {
				t.Errorf("paced are %q, want %q", got, c.paced)
			}
			for _, name := range []string{"eth0", "eth1"} {
				want := "uplink " + name + ": " + lacks + ": bandwidth.egress is held there by dropping what is faster, instead of letting it wait"
				if slices.Contains(d.Notes, want) != slices.Contains(c.lacks, name) {
					t.Errorf("notes are %q", d.Notes)
				}
			}
		})
	}
}

func TestWithoutABandwidthNobodyAsksForFQ(t *testing.T) {
	site := strings.NewReplacer("LAN", "mtu: 1500", "WEB", "snat: none", ", bandwidth: {egress: 3Mbps}", "").Replace(pacedSite)
	cfg := parse(t, site)
	f := facts("eth0", "eth1", "lan", "web-1")
	f.Host.Queues = map[string]host.Queue{"eth0": {NoFQ: "none"}}
	d := compile(t, cfg, Runtime{}, f)
	if added := (Added{Workload: config.Workload{Bandwidth: 1}}); len(LooksAtQueues(cfg, []Added{added})) == 0 {
		t.Error("an added workload's bandwidth asks about no queues")
	}
	if LooksAtQueues(cfg, nil) != nil || d.Host.Qdiscs != nil || d.TC.Generation.Paced != nil || len(d.Notes) > 0 {
		t.Errorf("looks at %v, qdiscs %v, paced %v, notes %q", LooksAtQueues(cfg, nil), d.Host.Qdiscs, d.TC.Generation.Paced, d.Notes)
	}
	if slices.ContainsFunc(d.TC.Interfaces, func(i tc.Interface) bool { return i.FQ }) {
		t.Errorf("interfaces are %v", d.TC.Interfaces)
	}
}
