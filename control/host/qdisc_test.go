package host

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fifo stands for fq, which this kernel may lack: tests/vm has the real one. Nothing here asks for more than its name.
var fifo = fairQueue{kind: "bfifo"}

func openWith(t *testing.T, dir string, fq fairQueue) *Host {
	t.Helper()
	h := open(t, dir)
	h.fq = fq
	return h
}

// vethOf makes a veth with so many transmit queues, both ends up.
func vethOf(t *testing.T, name string, queues int) {
	t.Helper()
	ip(t, fmt.Sprintf("link add %s numtxqueues %d type veth peer name p%s", name, queues, name))
	ip(t, "link set "+name+" up")
	ip(t, "link set p"+name+" up")
	settled(t)
}

func qdiscsSaid(t *testing.T, link string) string {
	t.Helper()
	return strings.TrimSpace(run(t, "tc", "qdisc", "show", "dev", link))
}

func TestALinkGetsFQAndItsQdiscBack(t *testing.T) {
	cases := []struct {
		what   string
		queues int
		before []string // tc qdisc …
		root   string   // that there is then
		below  int      // fq below it
	}{
		{"one queue, the kernel's default", 1, nil, "bfifo 1bc: root", 0},
		{"several queues", 4, nil, "mq 1bc: root", 4},
		{"somebody's own with its options", 1, []string{"replace dev eth0 root handle 7: pfifo limit 77"}, "bfifo 1bc: root", 0},
		{"somebody's own on several queues", 2, []string{"replace dev eth0 root handle 7: pfifo limit 77"}, "mq 1bc: root", 2},
		{"fq already", 1, []string{"replace dev eth0 root handle 7: bfifo limit 77777"}, "bfifo 7: root", 0},
		{"fq already, below mq", 2, []string{"replace dev eth0 root handle 7: mq", "replace dev eth0 parent 7:1 bfifo", "replace dev eth0 parent 7:2 bfifo"}, "mq 7: root", 2},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			inNamespace(t)
			vethOf(t, "eth0", c.queues)
			for _, args := range c.before {
				run(t, "tc", strings.Fields("qdisc "+args)...)
			}
			before := machine(t)
			dir := t.TempDir()
			want := State{Qdiscs: []Qdisc{{"eth0", true}}}
			if done := apply(t, openWith(t, dir, fifo), want); !slices.Equal(done, []string{"set link eth0 qdisc fq"}) {
				t.Errorf("the steps were %q", done)
			}
			if got := qdiscsSaid(t, "eth0"); !strings.Contains(got, c.root) || strings.Count(got, "bfifo") != max(c.below, 1) {
				t.Errorf("the link has\n%s", got)
			}
			h := openWith(t, dir, fifo) // a daemon that starts again knows what it did
			if ops := Diff(observe(t, h), want); len(ops) > 0 {
				t.Errorf("after a restart there is %v to do", ops)
			}
			if done := apply(t, h, State{}); !slices.Equal(done, []string{"restore link eth0 qdisc"}) {
				t.Errorf("the steps back were %q", done)
			}
			same(t, "the machine", before, machine(t))
			if _, err := os.Stat(h.path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the ledger is still there: %v", err)
			}
		})
	}
}

func TestAQdiscThatSomebodyPutInPlaceOfFQIsReplacedWhileItIsWanted(t *testing.T) {
	inNamespace(t)
	vethOf(t, "eth0", 2)
	before := machine(t)
	h := openWith(t, t.TempDir(), fifo)
	want := State{Qdiscs: []Qdisc{{"eth0", true}}}
	for _, args := range []string{
		"replace dev eth0 parent 1bc:2 pfifo", "replace dev eth0 root handle 7: htb", "del dev eth0 root",
	} {
		apply(t, h, want)
		run(t, "tc", strings.Fields("qdisc "+args)...)
		if got := observe(t, h).Qdiscs; !slices.Equal(got, []Qdisc{{"eth0", false}}) {
			t.Errorf("after `tc qdisc %s` it observes %v", args, got)
		}
	}
	apply(t, h, want)
	down(t, h)
	same(t, "the machine", before, machine(t))

	// What came after us is somebody's: down leaves it.
	apply(t, h, want)
	run(t, "tc", strings.Fields("qdisc replace dev eth0 root handle 7: htb")...)
	before = machine(t)
	down(t, h)
	same(t, "the machine with a qdisc that came after ours", before, machine(t))
}

func TestAQdiscWithClassesIsNotTaken(t *testing.T) {
	inNamespace(t)
	vethOf(t, "eth0", 1)
	vethOf(t, "eth1", 1)
	run(t, "tc", strings.Fields("qdisc replace dev eth0 root handle 7: htb")...)
	before := machine(t)
	h := openWith(t, t.TempDir(), fifo)
	err := h.Apply(t.Context(), setQdisc{"eth0"})
	if err == nil || !strings.Contains(err.Error(), "set link eth0 qdisc fq: htb 7: was put there by somebody") {
		t.Errorf("the step says %v", err)
	}
	if len(h.ledger.Qdiscs) > 0 {
		t.Errorf("the ledger claims %v", h.ledger.Qdiscs)
	}
	if err := h.Apply(t.Context(), setQdisc{"eth7"}); !errors.Is(err, ErrNoLink) {
		t.Errorf("a link that is not there: %v", err)
	}
	if err := h.Apply(t.Context(), dropQdisc{"eth7"}); err != nil {
		t.Errorf("giving back a link that went: %v", err)
	}
	h.fq.kind = "no-such-qdisc"
	if err := h.Apply(t.Context(), setQdisc{"eth1"}); !errors.Is(err, unix.ENOENT) || len(h.ledger.Qdiscs) > 0 {
		t.Errorf("a kernel without it: %v, and the ledger claims %v", err, h.ledger.Qdiscs)
	}
	same(t, "the machine", before, machine(t))
}

func TestWhatAQueueLacksForDepartureTimes(t *testing.T) {
	inNamespace(t)
	vethOf(t, "eth0", 1)
	vethOf(t, "eth1", 1)
	run(t, "tc", strings.Fields("qdisc replace dev eth0 root handle 7: htb")...)
	before := machine(t)
	got, err := QueuesOf(t.Context(), []string{"eth0", "eth1", "gone"})
	if err != nil || len(got) != 2 {
		t.Fatalf("got %v, %v", got, err)
	}
	has, err := hasFQ()
	if err != nil {
		t.Fatal(err)
	}
	state, err := moduleState("sch_fq", "CONFIG_NET_SCH_FQ")
	if err != nil || has != (state != moduleAbsent) {
		t.Errorf("the kernel says %v of fq, and its configuration %s (%v)", has, state, err)
	}
	for name, want := range map[string]string{"eth0": "htb 7: was put there by somebody", "eth1": ""} {
		if !has {
			want = "this kernel has no fq"
		}
		if q := got[name]; !strings.Contains(q.NoFQ, want) || (want == "") != (q.NoFQ == "") {
			t.Errorf("%s: %q, want %q", name, q.NoFQ, want)
		}
	}
	if none, err := QueuesOf(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("nobody asked, and the answer is %v, %v", none, err)
	}
	same(t, "the machine", before, machine(t))
}
