package daemon

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
	"sluice/xdp"
	"sluice/xdp/abi"
)

func TestWordsOfACaptureBecomeAFilter(t *testing.T) {
	d := idle(t)
	prefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	for _, c := range []struct {
		name string
		r    api.CaptureRequest
		want xdp.CaptureFilter
	}{
		{"nothing", api.CaptureRequest{}, xdp.CaptureFilter{Protocol: -1}},
		{"reasons", api.CaptureRequest{Reasons: []string{"banned", "rule-accept"}}, xdp.CaptureFilter{Protocol: -1, Reasons: []abi.Reason{abi.ReasonBanned, abi.ReasonRuleAccept}}},
		{"an address", api.CaptureRequest{Host: "::ffff:192.0.2.7"}, xdp.CaptureFilter{Protocol: -1, Host: netip.MustParsePrefix("192.0.2.7/32")}},
		{"a prefix", api.CaptureRequest{Host: "2001:db8::/32"}, xdp.CaptureFilter{Protocol: -1, Host: netip.MustParsePrefix("2001:db8::/32")}},
		{"the rest", api.CaptureRequest{Hook: "tcx-egress", Protocol: "udp", Port: 53, Sample: 3, Snaplen: 64},
			xdp.CaptureFilter{Protocol: 17, Port: 53, Sample: 3, Snaplen: 64, Hooks: []abi.Hook{abi.HookTcEgress}}},
	} {
		got, err := d.captureFilter(c.r)
		if diff := cmp.Diff(c.want, got, prefix); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", c.name, err, diff)
		}
	}
	// A fate is all of its reasons, and both fates are every reason.
	dropped, err := d.captureFilter(api.CaptureRequest{Fate: api.FateDropped})
	passed, err2 := d.captureFilter(api.CaptureRequest{Fate: api.FatePassed})
	if err != nil || err2 != nil || len(dropped.Reasons)+len(passed.Reasons) != int(abi.ReasonMax) {
		t.Errorf("%d and %d reasons (%v, %v)", len(dropped.Reasons), len(passed.Reasons), err, err2)
	}
	for _, r := range dropped.Reasons {
		if r.Fate() != abi.FateDrop {
			t.Errorf("%s is not dropped", r)
		}
	}
}

func TestWhatACaptureDoesNotUnderstandIsSaid(t *testing.T) {
	d := idle(t)
	for _, c := range []struct {
		r    api.CaptureRequest
		want []string
	}{
		{api.CaptureRequest{Reasons: []string{"rule-drpo"}}, []string{`there is no reason "rule-drpo"; near it are rule-drop, `}},
		{api.CaptureRequest{Reasons: []string{"qqq"}}, []string{"there is no reason \"qqq\"; `sluice show reasons` lists"}},
		{api.CaptureRequest{Reasons: []string{"rule-accept"}, Fate: api.FateDropped}, []string{"no packet with the reason rule-accept is dropped: its fate is pass"}},
		{api.CaptureRequest{Fate: "lost"}, []string{`fate "lost": want dropped or passed`}},
		{api.CaptureRequest{Rules: []string{"ingress/x"}}, []string{"there is no rule \"ingress/x\"; `sluice show policy` lists them"}},
		{api.CaptureRequest{Host: "web-1"}, []string{`host "web-1": want an address or a prefix`}},
		{api.CaptureRequest{Host: "::ffff:0:0/96"}, []string{"want an address or a prefix"}},
		{api.CaptureRequest{Host: "fe80::1%eth0"}, []string{"want an address or a prefix"}},
		{api.CaptureRequest{Interface: "lo"}, []string{`no program of Sluice's is on "lo"`}},
		{api.CaptureRequest{Hook: "tc"}, []string{`hook "tc": want one of xdp, tcx-ingress, tcx-egress`}},
		{api.CaptureRequest{Protocol: "tpc", Sample: -1}, []string{`protocol "tpc"`, "not negative"}},
	} {
		_, err := d.captureFilter(c.r)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v\nwant %s", c.r, err, want)
			}
		}
	}
	known := []string{"ingress/no-bogons", "ingress/web", "egress/dns", "workload/web-1/ingress/web"}
	for word, want := range map[string][]string{
		"no-bogons": {"ingress/no-bogons"}, "ingress/nobogons": {"ingress/no-bogons", "ingress/web", "workload/web-1/ingress/web"},
		"web": {"ingress/web", "workload/web-1/ingress/web"}, "x": {}, "": {},
	} {
		if diff := cmp.Diff(want, near(word, known)); diff != "" {
			t.Errorf("near %q:\n%s", word, diff)
		}
	}
}

func TestThereIsOneCaptureAtATime(t *testing.T) {
	var c captures
	first, id, err := c.begin(t.Context(), "ann (process 12)")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.begin(t.Context(), "bob"); err == nil || !strings.Contains(err.Error(), "a capture of ann (process 12) is under way since ") {
		t.Errorf("a second one: %v", err)
	}
	if c.stop(id+1) || first.Err() != nil {
		t.Error("another id ends it")
	}
	if !c.stop(id) || first.Err() == nil {
		t.Error("its id does not end it")
	}
	c.over()
	if c.stop(id) {
		t.Error("what is over can be ended")
	}
	if _, next, err := c.begin(t.Context(), ""); err != nil || next == id {
		t.Errorf("the next one has id %d (%v)", next, err)
	}
}

func TestTheSourceOfAFrame(t *testing.T) {
	ip4 := append([]byte{0x45}, make([]byte, 19)...)
	copy(ip4[12:], []byte{192, 0, 2, 7})
	ip6 := append([]byte{0x60}, make([]byte, 39)...)
	copy(ip6[8:], netip.MustParseAddr("2001:db8::7").AsSlice())
	ether := func(payload []byte, types ...uint16) []byte {
		out := make([]byte, 12)
		for i, kind := range types {
			if out = binary.BigEndian.AppendUint16(out, kind); i < len(types)-1 {
				out = append(out, 0, 1)
			}
		}
		return append(out, payload...)
	}
	for _, c := range []struct {
		name string
		f    xdp.Frame
		want string
	}{
		{"IPv4", xdp.Frame{Data: ether(ip4, 0x0800)}, "192.0.2.7"},
		{"IPv6 behind two tags", xdp.Frame{Data: ether(ip6, 0x88a8, 0x8100, 0x86dd)}, "2001:db8::7"},
		{"a bare packet", xdp.Frame{Data: ip6, L3: true}, "2001:db8::7"},
		{"ARP", xdp.Frame{Data: ether(ip4, 0x0806)}, "invalid IP"},
		{"cut short", xdp.Frame{Data: ether(ip4[:10], 0x0800)}, "invalid IP"},
		{"tags without end", xdp.Frame{Data: ether(nil, 0x8100, 0x8100, 0x8100)}, "invalid IP"},
		{"nothing", xdp.Frame{}, "invalid IP"},
		{"nothing, bare", xdp.Frame{L3: true}, "invalid IP"},
	} {
		if got := sourceOf(c.f).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
