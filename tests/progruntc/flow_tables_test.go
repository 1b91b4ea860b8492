package progruntc_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// formerFlow is a flow as the tables of layout version 1 hold it: in the direction of its first packet.
type formerFlow struct {
	table, from, to string
	idle            time.Duration
	flags           uint32 // 1: replied, 2: closing
}

func (f formerFlow) put(t *testing.T, m *ebpf.Map) {
	t.Helper()
	src, dst := netip.MustParseAddrPort(f.from), netip.MustParseAddrPort(f.to)
	from, to := src.Addr().As16(), dst.Addr().As16()
	key := slices.Concat(from[:], to[:])
	key = binary.BigEndian.AppendUint16(key, src.Port())
	key = binary.BigEndian.AppendUint16(key, dst.Port())
	key = append(key, unix.IPPROTO_TCP, 0, 0, 0)
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	value := binary.NativeEndian.AppendUint64(nil, uint64(now.Nano()-int64(f.idle)))
	value = binary.NativeEndian.AppendUint32(value, f.flags)
	if err := m.Put(key, append(value, 0, 0, 0, 0)); err != nil {
		t.Fatal(err)
	}
}

// formerSite leaves the pins as a binary of layout version 1 does: its tables, and programs in the slots that use them.
func (s *site) formerSite(t *testing.T) map[string]*ebpf.Map {
	t.Helper()
	if err := s.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir, err := pin.Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]*ebpf.Map{}
	for _, name := range []string{"flows-out", "flows-in"} {
		m, err := dir.StateMap(&ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 40, ValueSize: 16, MaxEntries: 4096}, name, 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		tables[name] = m
	}
	for kind, attach := range map[string]ebpf.AttachType{"tcx-ingress": ebpf.AttachTCXIngress, "tcx-egress": ebpf.AttachTCXEgress} {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: attach, License: "GPL", Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R1, tables["flows-out"].FD()), asm.LoadMapPtr(asm.R1, tables["flows-in"].FD()), asm.Mov.Imm(asm.R0, -1), asm.Return(),
		}})
		if err != nil {
			t.Fatal(err)
		}
		err = dir.Switch(pin.Hook{Kind: kind, Interface: "uplink"}, p)
		if err = errors.Join(err, p.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return tables
}

func TestAnUpgradeKeepsTheFlowsOfTheFormerLayout(t *testing.T) {
	s := newSite(t)
	tables := s.formerSite(t)
	const replied, closing = 1, 2
	for _, f := range []formerFlow{
		{"flows-out", "10.0.1.10:40000", "198.51.100.7:443", 7000 * time.Second, replied}, // workload one's, idle for two hours
		{"flows-out", "10.0.1.10:40001", "198.51.100.7:443", 7441 * time.Second, replied}, // and longer
		{"flows-out", "10.0.1.10:40002", "198.51.100.7:443", 5 * time.Second, replied | closing},
		{"flows-in", "198.51.100.7:5000", "10.0.1.10:8000", 100 * time.Second, replied}, // which no rule of today lets in
	} {
		f.put(t, tables[f.table])
	}
	s.converge(t, baseline())
	for _, name := range []string{"flows-out", "flows-in"} {
		if _, err := os.Stat(pin.At(s.dir).StateMapPath(name, 1)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the former table %s is still pinned: %v", name, err)
		}
	}
	flows, err := s.Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range flows {
		got = append(got, f.Origin+" "+f.Source()+" > "+f.Destination()+" "+f.State+" "+f.Idle.Round(time.Minute).String())
	}
	want := []string{
		"inside 10.0.1.10:40000 > 198.51.100.7:443 established 1h57m0s",
		"inside 10.0.1.10:40002 > 198.51.100.7:443 closing 0s",
		"outside 198.51.100.7:5000 > 10.0.1.10:8000 established 2m0s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("flows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	walk(t, s,
		step{at: "uplink ingress", line: "tcp 198.51.100.7:443 > 10.0.1.10:40000 flags=A", reason: abi.ReasonDelivered, to: "wl1"},
		step{at: "uplink ingress", line: "tcp 198.51.100.7:443 > 10.0.1.10:40001 flags=A", reason: abi.ReasonDefaultDrop},
		step{at: "uplink ingress", line: "tcp 198.51.100.7:443 > 10.0.1.10:40002 flags=A", reason: abi.ReasonDelivered, to: "wl1"},
	)
}

// TestAResizeUnderTrafficLosesNoConnection changes conntrack.max_entries there and back while data flow.
func TestAResizeUnderTrafficLosesNoConnection(t *testing.T) {
	s := newSite(t)
	s.workload1.serveTCP(t, w1v4, 80)
	c, err := s.outside.dial("tcp", client4, w1v4, 80, deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 4 {
		resize := func() error {
			want := baseline()
			want.Generation.FlowSlots = uint32(2048 << (i % 2))
			return s.gateway.run(func() error { return s.applyAll(wanted(want)) })
		}
		if err := transfer(c, 8<<20, resize); err != nil {
			t.Fatalf("resize %d: %v", i, err)
		}
		if formers, err := pin.At(s.dir).Formers("flows", 3); err != nil || len(formers) != 0 {
			t.Errorf("former tables %q are left: %v", formers, err)
		}
	}
	for reason, n := range s.counted(t, "uplink") {
		if reason.Fate() == abi.FateDrop {
			t.Errorf("%d packets were dropped: %s", n, reason)
		}
	}
	list, err := s.SelectFlows(t.Context(), tc.FlowQuery{Port: 80})
	if err != nil || list.Total != 1 || list.Flows[0].State != "established" || list.Flows[0].Sent.Packets == 0 || list.Flows[0].Answered.Bytes < 32<<20 {
		t.Errorf("the connection's flow: %+v, %v", list, err)
	}
}

func TestAFlowSaysWhatPassedAndWhoLetItIn(t *testing.T) {
	s := newSite(t)
	s.workload1.serveTCP(t, w1v4, 80)
	s.outside.reaches(t, "tcp", client4, w1v4, 80)
	list, err := s.SelectFlows(t.Context(), tc.FlowQuery{Rule: w1Web, Workload: "one",
		Workloads: []tc.FlowWorkload{{Name: "one", Ifindex: index(t, "wl1").Index, Addresses: addrs(w1v4, w1v6)}}})
	if err != nil || list.Total != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	f := list.Flows[0]
	if f.Origin != "outside" || f.Sent.Packets < 3 || f.Answered.Packets < 2 || f.Age > deadline || f.Owner != 0 || f.Workload != "one" {
		t.Errorf("%+v", f)
	}
	swept, err := s.Sweep(t.Context())
	if err != nil || swept.Flows.Entries+swept.FreshIn.Entries == 0 || swept.Flows.Max != 4096 {
		t.Errorf("%+v, %v", swept, err)
	}
	if n, err := s.ClearFlows(t.Context(), tc.FlowQuery{Port: 80}); n != 1 || err != nil {
		t.Errorf("%d cleared, %v", n, err)
	}
	walk(t, s, step{at: "wl1 ingress", line: "tcp 10.0.1.10:80 > 192.0.2.99:1 flags=A", reason: abi.ReasonDefaultDrop})
}

func TestTheMonitorHearsTheLifeOfAFlow(t *testing.T) {
	s := newSite(t)
	s.workload1.serveTCP(t, w1v4, 80)
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	var heard []string
	begun, told := make(chan struct{}), 0
	ended := make(chan error, 1)
	go func() {
		ended <- s.WatchFlows(ctx, 1000, func(e tc.FlowEvent) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, e.Change+" "+e.Flow.Source()+" > "+e.Flow.Destination())
		}, func(table.Unseen) {
			if told++; told == 2 { // before it begins, and when it has
				close(begun)
			}
		})
	}()
	await := func(what string) {
		t.Helper()
		awaitTrue(t, what, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.ContainsFunc(heard, func(line string) bool {
				return strings.HasPrefix(line, what+" 198.51.100.7:") && strings.HasSuffix(line, " > 10.0.1.10:80")
			})
		})
	}
	select {
	case <-begun:
	case err := <-ended:
		t.Fatal(err)
	}
	c, err := s.outside.dial("tcp", client4, w1v4, 80, deadline)
	if err != nil {
		t.Fatal(err)
	}
	await("new")
	await("proven")
	c.Close()
	await("closed")

	c, err = s.outside.dial("tcp", client4, w1v4, 80, deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := baseline()
	want.Generation.Workloads[0].Ingress.Rules = []classify.Rule{{ID: w1Web, Name: "web", Protocol: 6, Ports: ports(81, 81), Action: classify.Accept}}
	if err := s.gateway.run(func() error { return s.applyAll(wanted(want)) }); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	await("revoked")
	stop()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
