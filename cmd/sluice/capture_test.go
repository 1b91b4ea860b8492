package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"sluice/control/api"
)

// taken is a packet as a reader of the file sees it.
type taken struct {
	Link, Comment string
	Type          layers.LinkType
	Time          time.Time
	Length        int
	Data          []byte
}

// readCapture reads a file by a library that did not write its own rules into it.
func readCapture(t *testing.T, from io.Reader) (all []taken, links []pcapgo.NgInterface) {
	t.Helper()
	r, err := pcapgo.NewNgReader(from, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, info, options, err := r.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		on, err := r.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, taken{on.Name, strings.Join(options.Comments, "|"), on.LinkType, info.Timestamp.UTC(), info.Length, data})
	}
	for i := range r.NInterfaces() {
		on, err := r.Interface(i)
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, on)
	}
	return all, links
}

// A frame for whom tcpdump has words.
var (
	packet4  = append([]byte{0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 7, 203, 0, 113, 9}, 4, 210, 0, 80, 0, 8, 0, 0)
	ethernet = append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}, packet4...)

	captured = []api.Frame{
		{Time: noon, Hook: "xdp", Interface: "eth0", Fate: "drop", Reason: "rule-drop", Rule: "ingress/no-bogons", File: "edge.yaml", Line: 31,
			Length: 1500, Data: ethernet},
		{Time: noon.Add(123456789), Hook: "tcx-egress", Interface: "eth0", Fate: "pass", Reason: "judged", Length: len(ethernet), Data: ethernet},
		{Time: noon.Add(time.Second), Hook: "xdp", Interface: "eth0", Fate: "drop", Reason: "banned", Ban: "192.0.2.0/24", Length: len(ethernet), Data: ethernet},
	}
	tunnelled = api.Frame{Time: noon, Hook: "tcx-ingress", Interface: "fra1", Fate: "drop", Reason: "default-drop", IP: true, Length: len(packet4), Data: packet4}
)

func TestACaptureIsAFileThatOthersRead(t *testing.T) {
	b := daemonOf(t, &box{frames: append(append([]api.Frame{}, captured...), tunnelled)})
	file := filepath.Join(t.TempDir(), "c.pcapng")
	got := sluice(t, "capture", "-w", file, "--count", "4")
	if got.code != exitDone || got.out != "" || got.err != "capturing to "+file+"; Ctrl-C ends it\n4 packets in "+file+
		"; 5 more came too fast (--sample or a narrower filter helps); 6 more were lost, because they were read too slowly\n" {
		t.Errorf("%+v", got)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all, links := readCapture(t, bytes.NewReader(raw))
	want := []taken{
		{"eth0", "drop rule-drop ingress/no-bogons (edge.yaml:31) xdp", layers.LinkTypeEthernet, noon, 1500, ethernet},
		{"eth0", "pass judged tcx-egress", layers.LinkTypeEthernet, noon.Add(123456789), len(ethernet), ethernet},
		{"eth0", "drop banned 192.0.2.0/24 xdp", layers.LinkTypeEthernet, noon.Add(time.Second), len(ethernet), ethernet},
		{"fra1", "drop default-drop tcx-ingress", layers.LinkTypeRaw, noon, len(packet4), packet4},
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("the file holds\n%s", diff)
	}
	if len(links) != 2 || links[0].Statistics.PacketsReceived != 3 || links[1].Statistics.PacketsReceived != 1 ||
		links[0].Statistics.PacketsDropped != pcapgo.NgNoValue64 {
		t.Errorf("its interfaces are %+v", links)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
	if diff := cmp.Diff([]string{"capture {Fate: Reasons:[] Rules:[] Host: Interface: Hook: Protocol: Port:0 Sample:0 Snaplen:0 By:ann}"}, b.asked); diff != "" {
		t.Errorf("the daemon was asked\n%s", diff)
	}
}

func TestTcpdumpReadsACapture(t *testing.T) {
	daemonOf(t, &box{frames: captured})
	got := sluice(t, "capture", "-w", "-", "--count", "3")
	if got.code != exitDone || !strings.HasPrefix(got.err, "capturing to standard output; Ctrl-C ends it\n3 packets in standard output; 5 more") {
		t.Errorf("%d %s", got.code, got.err)
	}
	all, links := readCapture(t, strings.NewReader(got.out))
	if len(all) != 3 || len(links) != 1 || links[0].Statistics.PacketsReceived != 14 || links[0].Statistics.PacketsDropped != 11 {
		t.Errorf("%d packets, interfaces %+v", len(all), links)
	}
	cmd := exec.CommandContext(t.Context(), "tcpdump", "-nr", "-")
	cmd.Stdin = strings.NewReader(got.out)
	out, err := cmd.CombinedOutput()
	if n := strings.Count(string(out), "IP 192.0.2.7.1234 > 203.0.113.9.80: UDP, length 0\n"); err != nil || n != 3 {
		t.Errorf("tcpdump reads %d packets (%v):\n%s", n, err, out)
	}
}

func TestACaptureEnds(t *testing.T) {
	b := daemonOf(t, &box{frames: captured})
	dir := t.TempDir()
	for _, test := range []struct {
		args    string
		packets int
	}{{"--count 2", 2}, {"--for 50ms", 3}, {"--size 1B", 1}, {"--size 300B", 2}, {"--count 3 --size 1MB", 3}} {
		file := filepath.Join(dir, strings.ReplaceAll(test.args, " ", ""))
		got := sluice(t, append([]string{"capture", "-w", file}, strings.Fields(test.args)...)...)
		raw, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if all, _ := readCapture(t, raw); len(all) != test.packets || got.code != exitDone {
			t.Errorf("%s: %d packets, want %d; %+v", test.args, len(all), test.packets, got)
		}
		raw.Close()
	}

	// Ctrl-C, without a single packet: still a file.
	b.frames = nil
	ctx, stop := context.WithCancel(t.Context())
	file := filepath.Join(dir, "empty")
	var out bytes.Buffer
	errs := &endsAtFirstWrite{end: stop} // "capturing to": it has begun
	if code := newCLI(&out, errs).run(ctx, []string{"capture", "-w", file, "--in", "eth7", "-o", "json"}); code != exitDone {
		t.Errorf("Ctrl-C: %d %s", code, errs.String())
	}
	if want := `"packets": 0,`; !strings.Contains(out.String(), want) || !strings.Contains(out.String(), `"lost": 6`) {
		t.Errorf("it says %s", out.String())
	}
	raw, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	r, err := pcapgo.NewNgReader(raw, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	if on, err := r.Interface(0); err != nil || on.Name != "eth7" {
		t.Errorf("an empty file has %+v (%v)", on, err)
	}
}

// endsAtFirstWrite is a Ctrl-C of somebody who waits until something is said.
type endsAtFirstWrite struct {
	bytes.Buffer
	end func()
}

func (w *endsAtFirstWrite) Write(p []byte) (int, error) {
	w.end()
	return w.Buffer.Write(p)
}

func TestADaemonThatEndsLeavesAFile(t *testing.T) {
	daemonOf(t, &box{frames: captured, dies: true})
	file := filepath.Join(t.TempDir(), "c.pcapng")
	got := sluice(t, "capture", "-w", file)
	if got.code != exitUnreachable || !strings.Contains(got.err, "3 packets in "+file+"; how many are missing is not known\n") ||
		!strings.Contains(got.err, "could not reach the daemon any more: it has ended; what came before is in "+file) {
		t.Errorf("%+v", got)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if all, _ := readCapture(t, bytes.NewReader(raw)); len(all) != 3 {
		t.Errorf("the file holds %d packets", len(all))
	}
}

func TestAFileIsNotReplacedUnasked(t *testing.T) {
	b := daemonOf(t, &box{frames: captured})
	file := write(t, "old", "precious")
	if got := sluice(t, "capture", "-w", file); got.code != exitNo || got.err != "sluice: "+file+" is there: give another name, or --force to replace it\n" {
		t.Errorf("%+v", got)
	}
	link, dir := filepath.Join(t.TempDir(), "link"), t.TempDir()
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{link, dir, "/dev/null"} {
		if got := sluice(t, "capture", "-w", name, "--force"); got.code != exitNo || !strings.Contains(got.err, "is no regular file, and is not replaced") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// What the daemon refuses leaves the file alone, too.
	b.fail = &api.Failure{Message: "no", Refused: true}
	if got := sluice(t, "capture", "-w", file, "--force"); got.code != exitNo || got.err != "sluice: no\n" {
		t.Errorf("%+v", got)
	}
	if raw, err := os.ReadFile(file); err != nil || string(raw) != "precious" {
		t.Errorf("the file holds %q (%v)", raw, err)
	}
	b.fail = nil
	if got := sluice(t, "capture", "-w", file, "--force", "--count", "1"); got.code != exitDone {
		t.Errorf("%+v", got)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 || info.Size() < 100 {
		t.Errorf("%+v (%v)", info, err)
	}
	if got := sluice(t, "capture", "-w", filepath.Join(dir, "no", "where")); got.code != exitNo || !strings.Contains(got.err, "no such file") {
		t.Errorf("%+v", got)
	}
}

func TestWhatACaptureIsAskedFor(t *testing.T) {
	b := daemonOf(t, &box{frames: captured})
	file := filepath.Join(t.TempDir(), "c")
	sluice(t, "capture", "-w", file, "--dropped", "--reason", "a", "--reason", "b", "--rule", "p/a,b", "--host", "192.0.2.0/24", "--in", "eth0",
		"--hook", "xdp", "--protocol", "tcp", "--port", "443", "--sample", "10", "--snaplen", "64", "--count", "1").is(t, outcome{
		err: "capturing to " + file + "; Ctrl-C ends it\n1 packet in " + file +
			"; 5 more came too fast (--sample or a narrower filter helps); 6 more were lost, because they were read too slowly\n"})
	if diff := cmp.Diff([]string{"capture {Fate:dropped Reasons:[a b] Rules:[p/a,b] Host:192.0.2.0/24 Interface:eth0 Hook:xdp Protocol:tcp Port:443 " +
		"Sample:10 Snaplen:64 By:ann}"}, b.asked); diff != "" {
		t.Errorf("the daemon was asked\n%s", diff)
	}
	for args, want := range map[string]string{
		"":                         "give -w FILE",
		"-w x --dropped --passed":  "say one of them",
		"-w x --sample -1":         "--sample -1: write a whole number",
		"-w x --size MB":           "--size MB: write a size",
		"-w x --size 9999999999GB": "write a size",
		"-w x --for soon":          "--for soon: write a time",
		"-w x --port 70000":        "a number from 1 to 65535",
		"-w x --count -1":          "--count -1: write a whole number",
		"-w x y":                   "takes no word",
	} {
		if got := sluice(t, append([]string{"capture"}, strings.Fields(args)...)...); got.code != exitUsage || !strings.Contains(got.err, want) {
			t.Errorf("capture %s: %+v", args, got)
		}
	}
}
