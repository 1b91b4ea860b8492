package host

import "testing"

func TestForwardingBuildsOnWhatBoundsIt(t *testing.T) {
	guard := setRule{Rule{Priority: 18801, InLink: "eth0", Prohibit: true}}
	for _, op := range []Op{setGroup{"eth0", 18800}, guard} {
		if what, _ := op.(builder).Builds(); what != bounds {
			t.Errorf("%s makes %q", op, what)
		}
	}
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if what, on := (setSysctl{Sysctl{Key: key, Value: "1"}}).Builds(); what != Forwarding || len(on) != 1 || on[0] != bounds {
			t.Errorf("%s makes %q, on %q", key, what, on)
		}
	}
}

// builder is the engine's Builder.
type builder interface {
	Builds() (what string, on []string)
}

func TestEveryOtherStepStandsForItself(t *testing.T) {
	underlay := setRule{Rule{Priority: 18810, Mark: 1, Mask: 1, Table: mainTable}}
	for _, op := range []Op{setSysctl{}, setMTU{}, setUp{}, setAddress{}, setRoute{}, setDevice{}, setQdisc{}, setInner{}, setTags{}, setTuning{}, underlay} {
		b, ok := op.(builder)
		if !ok {
			t.Errorf("%T does not say what it builds on", op)
			continue
		}
		if what, on := b.Builds(); what != "" || on != nil {
			t.Errorf("%T makes %q, on %q", op, what, on)
		}
	}
}
