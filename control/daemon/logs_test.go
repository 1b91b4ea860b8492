package daemon

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"sluice/control/api"
	"sluice/xdp"
	"sluice/xdp/abi"
)

// heard is an idle daemon with what it logs, and somebody who reads its events.
func heard(t *testing.T) (*Daemon, *bytes.Buffer, *reader) {
	t.Helper()
	d, out := idle(t), &bytes.Buffer{}
	d.opts.Log = slog.New(slog.NewTextHandler(out, nil))
	r := read(t, d.hub)
	r.want(t, api.EventBegin)
	return d, out, r
}

func TestLoggedPacketsAreEventsAndBoundedLines(t *testing.T) {
	d, out, r := heard(t)
	w := &logWriter{d: d, names: d.newNames()}
	w.unseen(xdp.Unseen{Suppressed: 1000, Lost: 1000}) // of former times
	s := xdp.Sample{Time: d.clock.Boot(), Hook: abi.HookTcIngress, Ifindex: 1 << 30, Len: 60, Fate: abi.EventShadow, Rule: 5, Protocol: 6, Ports: true,
		TCPFlags: 2, Src: netip.MustParseAddrPort("192.0.2.7:1234"), Dst: netip.MustParseAddrPort("203.0.113.9:443")}
	w.packet(s)
	e := r.want(t, api.EventLog)
	if l := e.Log; l == nil || l.Verdict != "shadow" || l.Hook != "tcx-ingress" || l.Source != s.Src.Addr() || *l.DestinationPort != 443 || l.TCPFlags != "S" {
		t.Errorf("the event is %+v", e.Log)
	}
	if line := out.String(); !strings.Contains(line, `level=INFO msg=packet rule="" verdict=shadow interface="interface 1073741824" hook=tcx-ingress protocol=tcp `+
		"source=192.0.2.7:1234 destination=203.0.113.9:443 length=60\n") {
		t.Errorf("the line is %s", line)
	}

	// A second has so many lines; the rest of it is counted, with what the kernel held back.
	for range logLines + 9 {
		w.packet(s)
	}
	w.unseen(xdp.Unseen{Suppressed: 1020, Lost: 1003})
	if n := strings.Count(out.String(), "msg=packet "); n != logLines {
		t.Errorf("%d lines in one second", n)
	}
	if !strings.Contains(out.String(), "too many at once\" packets=33\n") {
		t.Errorf("what was not written is told as %s", out.String()[max(0, out.Len()-300):])
	}
	before := out.Len()
	w.unseen(xdp.Unseen{Suppressed: 1020, Lost: 1003})
	if out.Len() != before {
		t.Errorf("nothing new is told as %s", out.String()[before:])
	}
	w.packet(s)
	if out.Len() == before {
		t.Error("the next second has no lines")
	}
}

// TestWhatAFilterSamplesIsAnEventAndNoLine: a neighbor is not to fill a disk.
func TestWhatAFilterSamplesIsAnEventAndNoLine(t *testing.T) {
	d, out, r := heard(t)
	w := &logWriter{d: d, names: d.newNames()}
	for fate, verdict := range map[abi.EventFate]string{abi.EventFilterPassed: "pass", abi.EventFilterDropped: "drop"} {
		w.packet(xdp.Sample{Time: d.clock.Boot(), Ifindex: 1 << 30, Len: 60, Fate: fate, Rule: 1, Protocol: 6,
			Src: netip.MustParseAddrPort("192.0.2.7:1234"), Dst: netip.MustParseAddrPort("203.0.113.9:443")})
		if l := r.want(t, api.EventLog).Log; l == nil || l.Verdict != verdict || l.Rule != "" {
			t.Errorf("the event is %+v", l)
		}
	}
	if out.Len() != 0 {
		t.Errorf("the log says %s", out.String())
	}
}
