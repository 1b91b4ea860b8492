package host

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// driven is a NIC of the test's own: settings with limits, as most drivers have them.
type driven struct {
	is     Values
	most   int      // above it a value is refused
	even   bool     // numbers are made even
	writes []string // what came, in order
	broken error
}

func (d *driven) resolve(_ string, want Values) (Values, error) { return want, d.broken }
func (d *driven) read(string) (Values, error)                   { return maps.Clone(d.is), d.broken }
func (d *driven) write(_ string, v Values) error {
	d.writes = append(d.writes, v.String())
	for _, k := range sortedKeys(v) {
		n := 0
		fmt.Sscan(v[k], &n)
		if d.most > 0 && n > d.most {
			return unix.EINVAL
		}
		if d.even {
			n &^= 1
		}
		d.is[k] = fmt.Sprint(n)
	}
	return nil
}

func rings(values Values) State { return State{Tunings: []Tuning{{"eth0", Rings, values}}} }

func steps(t *testing.T, h *Host, want State) []string {
	t.Helper()
	var out []string
	for _, op := range Diff(observe(t, h), want) {
		out = append(out, op.String())
	}
	return out
}

func TestASettingIsMadeOnceAndGivenBackByValue(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	dir, nic := t.TempDir(), &driven{is: Values{"rx": "256", "tx": "128"}}
	on := func() *Host {
		h := open(t, dir)
		h.tuners[Rings] = nic
		return h
	}
	h := on()
	if done := apply(t, h, rings(Values{"rx": "512"})); !slices.Equal(done, []string{"set link eth0 rings rx 512"}) {
		t.Errorf("the steps were %q", done)
	}
	h = on() // a daemon that starts again knows what it did
	if left := steps(t, h, rings(Values{"rx": "512"})); left != nil {
		t.Errorf("there is %q to do", left)
	}
	nic.is["rx"] = "64" // by hand
	if left := steps(t, h, rings(Values{"rx": "512"})); !slices.Equal(left, []string{"set link eth0 rings rx 512"}) {
		t.Errorf("of drift %q is to do", left)
	}
	apply(t, h, rings(Values{"rx": "512"}))
	apply(t, h, rings(Values{"rx": "1024", "tx": "1024"}))
	apply(t, h, rings(Values{"tx": "1024"})) // rx is given back alone
	if got := nic.is.String(); got != "rx 256 tx 1024" {
		t.Errorf("without rx the rings are %s", got)
	}
	apply(t, h, State{})
	if got := nic.is.String(); got != "rx 256 tx 128" {
		t.Errorf("at the end the rings are %s", got)
	}
	if want := []string{"rx 512", "rx 512", "rx 1024 tx 1024", "rx 256", "tx 128"}; !slices.Equal(nic.writes, want) {
		t.Errorf("the driver was told %q, want %q", nic.writes, want)
	}
	if !h.ledger.empty() {
		t.Errorf("the ledger still has %+v", h.ledger.Tunings)
	}
}

func TestWhatTheDriverDoesNotMakeIsAnErrorAndLeavesAllAsItWas(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	for name, c := range map[string]struct {
		nic  *driven
		says string
	}{
		"refused":         {&driven{most: 4096}, "invalid argument"},
		"made other of":   {&driven{even: true}, `the driver makes "rx 5000" of "rx 5001"`},
		"cannot be asked": {&driven{broken: errors.New("firmware hangs")}, "firmware hangs"},
	} {
		c.nic.is = Values{"rx": "256"}
		h := open(t, t.TempDir())
		h.tuners[Rings] = c.nic
		err := h.Apply(t.Context(), setTuning{Tuning{"eth0", Rings, Values{"rx": "5001"}}})
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "set link eth0 rings rx 5001: ") {
			t.Errorf("%s: error %v, want %q", name, err, c.says)
		}
		if c.nic.is["rx"] != "256" || !h.ledger.empty() {
			t.Errorf("%s: rx is %s, and the ledger has %+v", name, c.nic.is["rx"], h.ledger.Tunings)
		}
	}
}

// TestANICThatCannotBeReadIsDriftAndNoMore: everything else of the machine is looked at all the same.
func TestANICThatCannotBeReadIsDriftAndNoMore(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	h, nic := open(t, t.TempDir()), &driven{is: Values{"rx": "256"}}
	h.tuners[Rings] = nic
	want := rings(Values{"rx": "512"})
	apply(t, h, want)
	nic.broken = errors.New("firmware hangs")
	if left := steps(t, h, want); !slices.Equal(left, []string{"set link eth0 rings rx 512"}) {
		t.Errorf("there is %q to do", left)
	}
	h.ledger.Tunings[0].What = "of the next version"
	if left := steps(t, h, State{}); left != nil {
		t.Errorf("of what another version set there is %q to do", left)
	}
}

// channelsOf are a veth's by ethtool(8): its receive and transmit queues in use.
func channelsOf(t *testing.T, link string) string {
	t.Helper()
	out, err := exec.Command("ethtool", "-l", link).CombinedOutput()
	_, now, found := strings.Cut(string(out), "Current hardware settings:")
	if err != nil || !found {
		t.Fatalf("ethtool -l %s: %v: %s", link, err, out)
	}
	return strings.Join(strings.Fields(now)[:4], " ")
}

func TestQueuesOfAVeth(t *testing.T) {
	inNamespace(t)
	ip(t, "link add eth0 numtxqueues 4 numrxqueues 4 type veth peer name peer numtxqueues 4 numrxqueues 4")
	run(t, "ethtool", "-L", "eth0", "rx", "3", "tx", "2")
	h := open(t, t.TempDir())
	want := State{Tunings: []Tuning{{"eth0", Queues, Values{"": "4"}}}}
	apply(t, h, want)
	if got := channelsOf(t, "eth0"); got != "RX: 4 TX: 4" {
		t.Errorf("the queues are %s", got)
	}
	run(t, "ethtool", "-L", "eth0", "rx", "1", "tx", "1")
	if left := steps(t, h, want); !slices.Equal(left, []string{"set link eth0 queues 4"}) {
		t.Errorf("of drift %q is to do", left)
	}
	apply(t, h, want)
	status, err := h.Status(t.Context())
	if i := slices.IndexFunc(status, func(s InterfaceStatus) bool { return s.Name == "eth0" }); err != nil || status[i].RxQueues != 4 {
		t.Errorf("the status is %+v, %v", status, err)
	}
	down(t, h)
	if got := channelsOf(t, "eth0"); got != "RX: 3 TX: 2" {
		t.Errorf("given back, the queues are %s", got)
	}
	err = h.Apply(t.Context(), setTuning{Tuning{"eth0", Queues, Values{"": "8"}}})
	if err == nil || !strings.Contains(err.Error(), "the driver (veth) refuses") {
		t.Errorf("8 queues of 4: error %v", err)
	}
}

func TestOffloadsOfAVeth(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	before := machine(t)
	h := open(t, t.TempDir())
	apply(t, h, State{Tunings: []Tuning{{"eth0", Offloads, Values{"gro": "on", "tso": "off", "lro": "off"}}}})
	features, err := h.offloads.read("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for name, on := range map[string]bool{"rx-gro": true, "tx-tcp-segmentation": false, "tx-tcp6-segmentation": false} {
		if features[name].on != on {
			t.Errorf("%s is %v", name, features[name].on)
		}
	}
	err = h.Apply(t.Context(), setTuning{Tuning{"eth0", Offloads, Values{"lro": "on"}}})
	if err == nil || !strings.Contains(err.Error(), "the driver (veth) cannot switch lro on (rx-lro is fixed)") {
		t.Errorf("error %v", err)
	}
	down(t, h)
	same(t, "given back, the machine differs", before, machine(t))
}
