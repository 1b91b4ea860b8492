//go:build vmguest

package guest

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/crypto/ipsec"
)

func TestTheKernelOffersESP(t *testing.T) {
	if names, err := ipsec.Missing(context.Background()); err != nil || len(names) != 0 {
		t.Fatalf("Missing = %v, %v", names, err)
	}
}

func TestESPCarriesBothFamiliesOverBothAndOnlyEncrypted(t *testing.T) {
	cases := map[string]outer{
		"IPv4": {false, ipsec.None}, "IPv6": {true, ipsec.None}, "UDP over IPv4": {false, ipsec.UDP}, "UDP over IPv6": {true, ipsec.UDP},
	}
	for name, o := range cases {
		t.Run(name, func(t *testing.T) {
			s := newESPSite(t, o)
			s.up(t)
			if clear, esp := s.passed(t); clear != 0 || esp == 0 {
				t.Errorf("on the wire: %d frames in clear, %d of ESP", clear, esp)
			}
			s.a.answersTo(t, "198.18.0.2", marker)
			if clear, _ := s.passed(t); clear == 0 {
				t.Error("the capture is blind: it has not seen what was sent in clear")
			}
			for _, n := range []*espNode{s.a, s.b} {
				if diff := cmp.Diff(n.want, n.look(t), equal); diff != "" {
					t.Errorf("(-want +have):\n%s", diff)
				}
				if ops := n.converge(t); len(ops) != 0 {
					t.Errorf("a second apply does %q", ops)
				}
			}
		})
	}
}

// A counter that had no meaning would be shown without one.
func TestESPEveryErrorCounterOfTheKernelHasAMeaning(t *testing.T) {
	all, err := ipsec.Statistics()
	if err != nil || len(all) < 25 {
		t.Fatalf("counters %v, %v", all, err)
	}
	for name := range all {
		if ipsec.Meaning(name) == "" {
			t.Errorf("%s has no meaning", name)
		}
	}
}
