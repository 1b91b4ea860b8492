package host

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nics are drivers of the test's own.
type nics struct {
	features map[string]map[string]feature
	deaf     bool // takes every wish and does nothing
	broken   error
}

func (n *nics) read(link string) (map[string]feature, error) {
	if n.broken != nil {
		return nil, n.broken
	}
	return maps.Clone(n.features[link]), nil
}

func (n *nics) switchTo(link string, names []string, on bool) error {
	for _, name := range names {
		if f := n.features[link][name]; !f.fixed && !n.deaf {
			n.features[link][name] = feature{on: on}
		}
	}
	return nil
}

func offloadsOf(t *testing.T, link string) string {
	t.Helper()
	o, err := openOffloads()
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	features, err := o.read(link)
	if err != nil {
		t.Fatal(err)
	}
	var on []string
	for _, name := range tagOffloads {
		f, known := features[name]
		if !known {
			t.Fatalf("the kernel does not name %s among %d features", name, len(features))
		}
		on = append(on, fmt.Sprint(f.on))
	}
	return strings.Join(on, " ")
}

func TestTagsStayInTheFrameAndTheOffloadComesBack(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	before := machine(t)
	dir := t.TempDir()
	want := State{Tags: []Tags{{"eth0", true}}}
	if done := apply(t, open(t, dir), want); !slices.Equal(done, []string{"set link eth0 rx-vlan-offload off"}) {
		t.Errorf("the steps were %q", done)
	}
	if eth0, eth1 := offloadsOf(t, "eth0"), offloadsOf(t, "eth1"); eth0 != "false false" || eth1 != "true true" {
		t.Errorf("offloads of eth0 are %s, of eth1 %s", eth0, eth1)
	}

	h := open(t, dir) // a daemon that starts again knows what it did
	if ops := Diff(observe(t, h), want); len(ops) > 0 {
		t.Errorf("after a restart there is %v to do", ops)
	}
	// Drift is repaired, and what was there before is not forgotten over it.
	nic, err := openOffloads()
	if err != nil {
		t.Fatal(err)
	}
	defer nic.close()
	if err := nic.switchTo("eth0", tagOffloads[:1], true); err != nil {
		t.Fatal(err)
	}
	if got := observe(t, h).Tags; !slices.Equal(got, []Tags{{"eth0", false}}) {
		t.Errorf("after a change by hand it observes %v", got)
	}
	apply(t, h, want)
	if got := offloadsOf(t, "eth0"); got != "false false" {
		t.Errorf("after the repair the offloads are %s", got)
	}
	if done := apply(t, h, State{}); !slices.Equal(done, []string{"restore link eth0 rx-vlan-offload"}) {
		t.Errorf("the steps back were %q", done)
	}
	same(t, "the machine", before, machine(t))
}

func TestDownGivesBackOnlyTheOffloadThatWasOn(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	nic, err := openOffloads()
	if err != nil {
		t.Fatal(err)
	}
	defer nic.close()
	if err := nic.switchTo("eth0", tagOffloads[1:], false); err != nil {
		t.Fatal(err)
	}
	before := machine(t)
	h := open(t, t.TempDir())
	apply(t, h, State{Tags: []Tags{{"eth0", true}}})
	// Also where somebody was there first.
	if err := nic.switchTo("eth0", tagOffloads[:1], true); err != nil {
		t.Fatal(err)
	}
	down(t, h)
	same(t, "the machine", before, machine(t))
}

func TestALinkWhoseOffloadWasOffIsClaimedAndLeftOff(t *testing.T) {
	inNamespace(t)
	ip(t, "tuntap add tap0 mode tap") // which takes no tags out, fixed
	before := machine(t)
	h := open(t, t.TempDir())
	apply(t, h, State{Tags: []Tags{{"tap0", true}}})
	down(t, h)
	same(t, "the machine", before, machine(t))
	if len(h.ledger.Tags) > 0 {
		t.Errorf("the ledger still has %v", h.ledger.Tags)
	}
}

func TestADriverThatKeepsTakingTagsOutFailsTheStep(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	on := func(fixed bool) map[string]map[string]feature {
		return map[string]map[string]feature{"eth0": {tagOffloads[0]: {on: true, fixed: fixed}, tagOffloads[1]: {fixed: true}}}
	}
	gone := errors.New("the firmware hangs")
	for name, c := range map[string]struct {
		nic  *nics
		want string
	}{
		"fixed on":             {&nics{features: on(true)}, "rx-vlan-hw-parse is fixed on by the driver"},
		"says yes and does no": {&nics{features: on(false), deaf: true}, "the driver leaves rx-vlan-hw-parse on"},
		"does not answer":      {&nics{broken: gone}, gone.Error()},
	} {
		h := open(t, t.TempDir())
		h.offloads = c.nic
		err := h.Apply(t.Context(), setTags{"eth0"})
		if err == nil || !strings.Contains(err.Error(), "set link eth0 rx-vlan-offload off: "+c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if len(h.ledger.Tags) > 0 {
			t.Errorf("%s: the ledger claims %v", name, h.ledger.Tags)
		}
	}
	h := open(t, t.TempDir())
	if err := h.Apply(t.Context(), setTags{"eth7"}); !errors.Is(err, ErrNoLink) {
		t.Errorf("a link that is not there: %v", err)
	}
	if err := h.Apply(t.Context(), dropTags{"eth7"}); err != nil {
		t.Errorf("giving back a link that went: %v", err)
	}
}

func TestWhoReceivesForAnInterface(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	ip(t, "link add br0 type bridge")
	got, err := ReceiversOf(t.Context(), []string{"eth0", "br0", "gone"})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || !slices.Equal(got["eth0"], []Receiver{{Link: "eth0", Kind: "veth"}}) ||
		!slices.Equal(got["br0"], []Receiver{{"br0", "bridge", "a bridge interface gets its frames without their tags"}}) {
		t.Errorf("got %+v", got)
	}
}

func TestAFixedOffloadHidesTags(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	h := open(t, t.TempDir())
	link, err := h.link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	fixed := &nics{features: map[string]map[string]feature{"eth0": {tagOffloads[0]: {on: true, fixed: true}}}}
	r, err := receiver(fixed, link)
	if err != nil || !strings.Contains(r.HidesTags, "rx-vlan-hw-parse is on [fixed]") {
		t.Errorf("got %+v, %v", r, err)
	}
	is(t, judgeTags(r), StatusWarn, "cannot be told not to")
	r.HidesTags = ""
	is(t, judgeTags(r), StatusOK, "other end")
	r.Kind = ""
	is(t, judgeTags(r), StatusOK, "switches rx-vlan-offload off")
}

func TestFeaturesOfNoLinkAreAnError(t *testing.T) {
	inNamespace(t)
	o, err := openOffloads()
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	if _, err := o.read("gone"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("reading: %v", err)
	}
	if err := o.switchTo("lo", []string{"no-such-offload"}, false); err == nil || !strings.Contains(err.Error(), "no offload no-such-offload") {
		t.Errorf("switching: %v", err)
	}
}
