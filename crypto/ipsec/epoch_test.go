package ipsec

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func minutes(at time.Time) uint64 { return uint64(at.Sub(epochStart) / time.Minute) }

func TestTheFirstEpochIsTheTimeOrBeyondAllBefore(t *testing.T) {
	cases := map[string]struct {
		now     time.Time
		highest uint64
		want    uint64
		err     error
	}{
		"nothing before":            {noon, 0, minutes(noon), nil},
		"older ones":                {noon, minutes(noon) - 1, minutes(noon), nil},
		"one of this minute":        {noon, minutes(noon), minutes(noon) + 1, nil},
		"the clock was set back":    {noon, minutes(noon) + 1000, minutes(noon) + 1001, nil},
		"the clock is not set":      {time.Unix(0, 0), 5, 0, ErrClock},
		"the clock says last month": {built.Add(-time.Second), 0, 0, ErrClock},
	}
	for name, c := range cases {
		got, err := firstEpoch(c.now, c.highest)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %d, %v; want %d, %v", name, got, err, c.want, c.err)
		}
	}
}

func TestTheWindowIsTwoAhead(t *testing.T) {
	for heard, want := range map[uint64][]uint64{0: nil, 1: {1, 2, 3}, 3624221: {3624221, 3624222, 3624223}} {
		if diff := cmp.Diff(want, window(heard)); diff != "" {
			t.Errorf("heard %d (-want +have):\n%s", heard, diff)
		}
	}
}

func TestAnEpochEndsByTimeOrBySequence(t *testing.T) {
	cases := []struct {
		age, rekey time.Duration
		packets    uint64
		want       bool
	}{
		{time.Hour, 24 * time.Hour, 0, false}, {24 * time.Hour, 24 * time.Hour, 0, true}, {1000 * time.Hour, 0, 5, false},
		{0, 0, maxPackets - 1, false}, {0, 0, maxPackets, true}, {-time.Hour, time.Minute, 0, false},
	}
	for _, c := range cases {
		if got := due(c.age, c.rekey, c.packets); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// node is a driver without a kernel: what it would send in is counted instead.
type node struct {
	*Driver
	t    *testing.T
	dir  string
	now  time.Time
	up   int             // how often the machine has booted
	used map[string]bool // direction and epoch of every state that was ever made
}

func newNode(t *testing.T) *node {
	n := &node{t: t, dir: t.TempDir(), now: noon, used: map[string]bool{}}
	n.boot()
	return n
}

// boot is a new boot of the machine.
func (n *node) boot() {
	n.up++
	n.start()
}

// start is a new process.
func (n *node) start() {
	n.Driver = &Driver{log: slog.New(slog.DiscardHandler), tunnels: map[string]*tunnel{},
		opts: Options{StateDir: n.dir, Now: func() time.Time { return n.now }, Boot: fmt.Sprint("boot ", n.up)}}
	if err := n.load(); err != nil {
		n.t.Fatal(err)
	}
}

// restart is start where the kernel still has the states for sending.
func (n *node) restart() {
	before := n.tunnels
	n.start()
	for name, t := range before {
		for peer, p := range t.peers {
			if now := n.tunnels[name]; now != nil && now.peers[peer] != nil {
				now.peers[peer].live = p.live
			}
		}
	}
}

func wanted(name string, peers ...string) Tunnel {
	t := Tunnel{Name: name, ID: "self", Keying: Static}
	for _, p := range peers {
		t.Peers = append(t.Peers, Peer{Name: p, ID: p})
	}
	return t
}

// send makes a new state for sending, as begin does, and fails the test where its epoch was used before.
func (n *node) send(tunnel, name string) uint64 {
	n.t.Helper()
	t := n.tunnels[tunnel]
	p := t.peers[name]
	if !p.reserved() {
		if err := n.reserve(t, []string{name}); err != nil {
			n.t.Fatal(err)
		}
	}
	p.live = p.take()
	// The key is of the identities, whatever the tunnel is called.
	id := fmt.Sprint(name, " ", p.live)
	if n.used[id] {
		n.t.Fatalf("epoch %d was used towards %s before", p.live, name)
	}
	n.used[id] = true
	return p.live
}

func (n *node) gone(tunnel, name string) {
	t := n.tunnels[tunnel]
	t.highest = max(t.highest, t.peers[name].Sent)
	delete(t.peers, name)
	if err := n.write(tunnel, t); err != nil {
		n.t.Fatal(err)
	}
}

func TestARebootGoesOnByTheClockOrAddsOne(t *testing.T) {
	n := newNode(t)
	first := minutes(noon)
	begin := func(what string, want uint64) {
		t.Helper()
		n.register(wanted("fra1", "b"))
		if got := n.send("fra1", "b"); got != want {
			t.Errorf("%s: epoch %d, want %d", what, got-first, want-first)
		}
	}
	begin("at noon", first)
	begin("rotated", first+1)
	for _, c := range []struct {
		what string
		now  time.Time
		want uint64
	}{
		{"a reboot in the same minute", noon.Add(30 * time.Second), first + 2},
		{"the clock is not set", time.Unix(0, 0), first + 3},
		{"the clock was set back", noon.Add(-time.Hour), first + 4},
		{"a day later", noon.Add(24 * time.Hour), first + 1440},
	} {
		n.now = c.now
		n.boot()
		begin(c.what, c.want)
	}
	n.now = n.now.Add(time.Hour)
	begin("rotated an hour later", first+1441)
	n.start()
	begin("its states were taken away", first+1442)
	n.restart()
	begin("rotated by another process", first+1443)
	n.now = n.now.Add(10 * time.Minute)
	if err := os.RemoveAll(n.dir); err != nil {
		t.Fatal(err)
	}
	n.boot()
	n.register(wanted("fra1", "b"))
	if got := n.send("fra1", "b"); got != minutes(n.now) {
		t.Errorf("without a disk: %d", got)
	}
}

func TestWhatIsReservedIsOnTheDiskOnceForAllPeers(t *testing.T) {
	n := newNode(t)
	names := []string{}
	for i := range 1000 {
		names = append(names, fmt.Sprint("p", i))
	}
	n.register(wanted("fra1", names...))
	file := filepath.Join(n.dir, "ipsec", "fra1.json")
	n.send("fra1", "p0")
	before, err := os.Stat(file)
	if err != nil || before.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", before, err)
	}
	for _, p := range names[1:] {
		n.send("fra1", p)
	}
	after, err := os.Stat(file)
	if err != nil || !os.SameFile(before, after) || after.ModTime() != before.ModTime() {
		t.Errorf("the file was written again: %v", err)
	}
	reqids := map[uint32]bool{}
	for _, p := range n.tunnels["fra1"].peers {
		reqids[p.reqid] = true
	}
	if len(reqids) != 1000 {
		t.Errorf("%d reqids", len(reqids))
	}
	data, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(data), "secret\":\"") {
		t.Errorf("%v", err)
	}
}

// What was sent between the copy and its return is nowhere on the disk.
func TestAStateDirectoryThatWasPutBackRepeatsNoEpoch(t *testing.T) {
	for what, begin := range map[string]func(n *node){
		"and the machine booted": (*node).boot,
		// The kernel's state is of this boot, and the file is not.
		"while the daemon was down": (*node).restart,
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t)
			n.register(wanted("fra1", "b"))
			n.send("fra1", "b")
			file := filepath.Join(n.dir, "ipsec", "fra1.json")
			backup, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				n.now = n.now.Add(time.Hour)
				n.boot()
				n.send("fra1", "b")
				n.send("fra1", "b")
			}
			if err := os.WriteFile(file, backup, 0o600); err != nil {
				t.Fatal(err)
			}
			n.now = n.now.Add(time.Hour)
			begin(n)
			n.send("fra1", "b")
			n.send("fra1", "b")
		})
	}
}

func TestAnUpgradeWithoutARebootAddsOne(t *testing.T) {
	n := newNode(t)
	n.register(wanted("fra1", "b"))
	n.send("fra1", "b")
	p := n.tunnels["fra1"].peers["b"]
	p.Boot = "" // what the version before has written
	if err := n.write("fra1", n.tunnels["fra1"]); err != nil {
		t.Fatal(err)
	}
	n.now = n.now.Add(time.Hour)
	n.restart()
	if got := n.send("fra1", "b"); got != minutes(noon)+1 {
		t.Errorf("%d epochs on", got-minutes(noon))
	}
}

// Whatever a node lives through, no epoch is used twice in a direction.
func TestNoLifeUsesAnEpochTwice(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 7))
		n := newNode(t)
		for range 100 {
			tunnel := []string{"fra1", "ams1"}[r.IntN(2)]
			name := tunnel + []string{"-a", "-b", "-c"}[r.IntN(3)]
			n.register(wanted(tunnel, tunnel+"-a", tunnel+"-b", tunnel+"-c"))
			switch r.IntN(8) {
			case 0:
				n.gone(tunnel, name)
			case 1: // removed as a whole
				x := n.tunnels[tunnel]
				x.highest, x.want, x.peers = x.top(), Tunnel{}, map[string]*peer{}
				if err := n.write(tunnel, x); err != nil {
					t.Fatal(err)
				}
			case 2:
				n.boot()
			case 3: // a process ends, and the kernel keeps its states
				n.restart()
			case 4:
				n.now = n.now.Add(time.Duration(r.IntN(600)) * time.Second)
			default:
				n.send(tunnel, name)
			}
		}
	}
}

func TestAnEpochThatIsNotOnTheDiskIsNotReserved(t *testing.T) {
	n := newNode(t)
	n.register(wanted("fra1", "b", "c"))
	before := n.send("fra1", "b")
	x := n.tunnels["fra1"]
	obstacle := filepath.Join(n.dir, "ipsec", "fra1.json.new", "in the way")
	if err := os.MkdirAll(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	var told error
	n.opts.Wrote = func(file string, err error) {
		if told = err; file != "ipsec/fra1.json" {
			t.Errorf("told of %s", file)
		}
	}
	for range 2 {
		if err := n.reserve(x, []string{"b"}); !errors.Is(err, errUnwritten) || told == nil {
			t.Fatalf("a write that cannot be: %v, told %v", err, told)
		}
		if p := x.peers["b"]; p.reserved() || p.Sent != before {
			t.Errorf("reserved %v, sent %d", p.reserved(), p.Sent)
		}
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if got := n.send("fra1", "b"); got != before+1 || told != nil {
		t.Errorf("epoch %d after %d, told %v", got, before, told)
	}
	n.boot()
	if p := n.tunnels["fra1"].peers["b"]; p.Sent != before+1 {
		t.Errorf("the disk knows %d, and %d was used", p.Sent, before+1)
	}
	n.register(wanted("fra1", "b", "c"))
	n.send("fra1", "b")
}

func TestAClockThatIsNotSetStopsOnlyThePeersThatBegin(t *testing.T) {
	n := newNode(t)
	n.register(wanted("fra1", "b"))
	before := n.send("fra1", "b")
	n.now = time.Unix(0, 0)
	x := n.register(wanted("fra1", "b", "fresh"))
	if got := n.send("fra1", "b"); got != before+1 {
		t.Errorf("epoch %d after %d", got, before)
	}
	if err := n.reserve(x, []string{"b", "fresh"}); !errors.Is(err, ErrClock) || !x.peers["b"].reserved() || x.peers["fresh"].reserved() {
		t.Errorf("error %v; %+v; %+v", err, x.peers["b"].counters, x.peers["fresh"].counters)
	}
}

func TestARenamedPeerKeepsItsEpochs(t *testing.T) {
	n := newNode(t)
	n.register(wanted("fra1", "b", "c"))
	n.send("fra1", "b")
	b := n.tunnels["fra1"].peers["b"]
	b.want = Peer{Name: "b", ID: "b"}
	w := wanted("fra1", "other", "c")
	w.Peers[0].ID = "b"
	if got := n.register(w).peers; got["other"] != b || got["b"] != nil || len(got) != 2 {
		t.Errorf("peers %v", got)
	}
}

func TestADamagedFileIsAnErrorAndNoNewBeginning(t *testing.T) {
	n := newNode(t)
	n.register(wanted("fra1", "b"))
	n.send("fra1", "b")
	file := filepath.Join(n.dir, "ipsec", "fra1.json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &Driver{tunnels: map[string]*tunnel{}, opts: n.opts}
	if err := d.load(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v", err)
	}
}

func TestWhatATunnelsFileHoldsComesBack(t *testing.T) {
	n := newNode(t)
	w := wanted("fra1", "b")
	w.Rekey, w.ReplayWindow = time.Hour, 64
	n.register(w)
	n.send("fra1", "b")
	n.tunnels["fra1"].peers["b"].Heard = 77
	n.tunnels["fra1"].dirty = true
	if err := n.save(); err != nil {
		t.Fatal(err)
	}
	n.boot()
	got := n.tunnels["fra1"]
	if diff := cmp.Diff(w, got.want, comparePrefix); diff != "" {
		t.Error(diff)
	}
	if p := got.peers["b"]; p.Heard != 77 || p.Sent != minutes(noon) || p.want.ID != "b" || p.reqid != ourRange+1 {
		t.Errorf("%+v", p)
	}
}

func TestAPauseDoublesUntilSomethingIsFound(t *testing.T) {
	var p pause
	now := noon
	var waits []time.Duration
	for range 5 {
		p.after(false, now)
		waits = append(waits, p.until.Sub(now))
		if p.over(p.until.Add(-1)) || !p.over(p.until) {
			t.Error("it ends at another time")
		}
	}
	s := time.Second
	if diff := cmp.Diff([]time.Duration{s, 2 * s, 4 * s, 8 * s, 8 * s}, waits); diff != "" {
		t.Error(diff)
	}
	if p.after(true, now); !p.over(now) {
		t.Error("what was found leaves a pause")
	}
}
