package progruntc_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

const (
	formerMark  = 1 << 19 // MARK_PASSED of a former version, and a stranger's in this one
	offsetMark  = 8       // in struct __sk_buff
	verdictNext = -1      // TCX_NEXT
)

var attachTypes = map[string]ebpf.AttachType{"tcx-ingress": ebpf.AttachTCXIngress, "tcx-egress": ebpf.AttachTCXEgress}

// formerRoot is the root of another version: it takes formerMark for a verdict, and does not know MARK_PASSED. Where the hook's
// slot is nil it judges nothing.
func formerRoot(t *testing.T, name string, kind string, slot *ebpf.Map) *ebpf.Program {
	t.Helper()
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, offsetMark, asm.Word),
		asm.JSet.Imm(asm.R2, formerMark, "next"),
	}
	if slot != nil {
		code = append(code, asm.Mov.Reg(asm.R1, asm.R6), asm.LoadMapPtr(asm.R2, slot.FD()), asm.Mov.Imm(asm.R3, 0), asm.FnTailCall.Call())
	}
	code = append(code, asm.Mov.Imm(asm.R0, verdictNext).WithSymbol("next"), asm.Return())
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, AttachType: attachTypes[kind], License: "GPL", Instructions: code})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// exchange puts another root in the place of the one on a hook, as one who knows the link can.
func (s *site) exchange(t *testing.T, hook pin.Hook, name string) *ebpf.Program {
	t.Helper()
	slot, err := pin.At(s.dir).Slot(hook)
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	former := formerRoot(t, name, hook.Kind, slot)
	if err := pin.At(s.dir).ExchangeRoot(hook, former); err != nil {
		t.Fatal(err)
	}
	return former
}

// attachedPrograms are the names of a hook's programs in the order in which they run, and the links that hold them.
func (s *site) attachedPrograms(t *testing.T, hook pin.Hook) (names []string, links []link.ID) {
	t.Helper()
	i, err := net.InterfaceByName(hook.Interface)
	if err != nil {
		t.Fatal(err)
	}
	all, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: attachTypes[hook.Kind]})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all.Programs {
		p, err := ebpf.NewProgramFromID(a.ID)
		if err != nil {
			t.Fatal(err)
		}
		info, err := p.Info()
		p.Close()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := a.LinkID()
		names, links = append(names, info.Name), append(links, id)
	}
	return names, links
}

// sendsMarked says whether a datagram of the gateway's own, with a mark, is echoed within wait. Each second there is another one.
func (s *site) sendsMarked(t *testing.T, to string, port uint16, mark int, wait time.Duration) bool {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		ctlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
		if ctlErr != nil {
			return ctlErr
		}
		return err
	}}
	c, err := d.Dial("udp", tcpAddr(to, port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for ; wait > 0; wait -= time.Second {
		if err := c.SetDeadline(time.Now().Add(min(wait, time.Second))); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 5)); err == nil {
			return true
		}
	}
	return false
}

func TestARootOfAnotherVersionIsExchangedInPlace(t *testing.T) {
	s := newSite(t)
	ingress, egress := pin.Hook{Kind: "tcx-ingress", Interface: "uplink"}, pin.Hook{Kind: "tcx-egress", Interface: "uplink"}
	slotless := formerRoot(t, "stranger", ingress.Kind, nil)
	i, err := net.InterfaceByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	other, err := link.AttachTCX(link.TCXOptions{Interface: i.Index, Program: slotless, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	ours, links := s.attachedPrograms(t, ingress)
	s.workload1.serveTCP(t, w1v4, 80)
	s.outside.serveUDP(t, client4, 54)
	for _, hook := range []pin.Hook{egress, ingress} {
		s.exchange(t, hook, "root_00000000")
	}
	if !s.sendsMarked(t, client4, 54, formerMark, deadline) {
		t.Error("the former root does not take the former mark: the test shows nothing")
	}
	done := s.converge(t, s.want)
	if len(done) != 2 || !strings.HasPrefix(done[0], "load") || done[1] != "attach tcx on uplink as uplink" {
		t.Errorf("done: %q", done)
	}
	for _, hook := range []pin.Hook{ingress, egress} {
		names, after := s.attachedPrograms(t, hook)
		if names[0] != ours[0] {
			t.Errorf("%s: %q are attached, want %q first", hook, names, ours[0])
		}
		if hook == ingress && (!slices.Equal(names, ours) || !slices.Equal(after, links)) {
			t.Errorf("the links or their order changed: %v %q, before %v %q", after, names, links, ours)
		}
	}
	if s.sendsMarked(t, client4, 54, formerMark, patience) {
		t.Error("a stranger's mark still passes by the egress policy")
	}
	s.outside.reaches(t, "tcp", client4, w1v4, 80)
	s.outside.doesNotReach(t, "tcp", client4, w1v4, 81)
}

func TestRootsAreExchangedWithoutLosingAConnection(t *testing.T) {
	s := newSite(t)
	s.workload1.serveTCP(t, w1v4, 80)
	c, err := s.outside.dial("tcp", client4, w1v4, 80, deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	next := tc.New(quiet(), tc.Options{BPFDir: s.dir})
	hooks := []pin.Hook{{Kind: "tcx-egress", Interface: "uplink"}, {Kind: "tcx-ingress", Interface: "uplink"},
		{Kind: "tcx-egress", Interface: "wl1"}, {Kind: "tcx-ingress", Interface: "wl1"}}
	formers := map[pin.Hook]*ebpf.Program{}
	for _, hook := range hooks {
		formers[hook] = s.exchange(t, hook, "root_00000000")
	}
	rounds := 0
	upgrade := func() error {
		rounds++
		return s.gateway.run(func() error {
			for _, hook := range hooks {
				if err := pin.At(s.dir).ExchangeRoot(hook, formers[hook]); err != nil {
					return err
				}
			}
			have, err := next.Observe(context.Background())
			if err != nil {
				return err
			}
			for _, op := range next.Diff(have, s.want) {
				if err := next.Apply(context.Background(), op); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for rounds < 8 {
		if err := transfer(c, 32<<20, upgrade); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"uplink", "wl1"} {
		for reason, n := range s.counted(t, name) {
			if reason.Fate() == abi.FateDrop {
				t.Errorf("%s dropped %d packets: %s", name, n, reason)
			}
		}
	}
}

func TestRootsThatAreTamperedWithAreRepaired(t *testing.T) {
	s := newSite(t)
	s.workload1.serveTCP(t, w1v4, 80)
	s.workload1.serveTCP(t, w1v4, 81)
	dir := pin.At(s.dir)
	ingress := pin.Hook{Kind: "tcx-ingress", Interface: "uplink"}
	ours, _ := s.attachedPrograms(t, ingress)
	for _, test := range []struct {
		name   string
		damage func(t *testing.T)
	}{
		{"a link that is detached, and its pin left", func(t *testing.T) {
			l, err := dir.Link(ingress)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := l.Detach(); err != nil {
				t.Fatal(err)
			}
		}},
		{"a root that judges nothing", func(t *testing.T) {
			if err := dir.ExchangeRoot(ingress, formerRoot(t, "anything", ingress.Kind, nil)); err != nil {
				t.Fatal(err)
			}
		}},
		{"one under our name", func(t *testing.T) {
			if err := dir.ExchangeRoot(ingress, formerRoot(t, ours[0], ingress.Kind, nil)); err != nil {
				t.Fatal(err)
			}
		}},
		{"a slot whose pin is gone", func(t *testing.T) {
			if err := os.Remove(filepath.Join(s.dir, "slots", ingress.Kind, ingress.Interface)); err != nil {
				t.Fatal(err)
			}
		}},
		{"a slot that was made again", func(t *testing.T) {
			if err := os.Remove(filepath.Join(s.dir, "slots", ingress.Kind, ingress.Interface)); err != nil {
				t.Fatal(err)
			}
			slot, err := dir.Slot(ingress)
			if err != nil {
				t.Fatal(err)
			}
			slot.Close()
		}},
	} {
		s.sub(t, test.name, func(t *testing.T) {
			test.damage(t)
			done := s.converge(t, s.want)
			if len(done) != 2 || !strings.HasPrefix(done[0], "load") || done[1] != "attach tcx on uplink as uplink" {
				t.Errorf("done: %q", done)
			}
			names, _ := s.attachedPrograms(t, ingress)
			if diff := cmp.Diff(ours, names); diff != "" {
				t.Errorf("attached:\n%s", diff)
			}
			s.outside.reaches(t, "tcp", client4, w1v4, 80)
			s.outside.doesNotReach(t, "tcp", client4, w1v4, 81)
		})
	}
}
