package abi_test

import (
	"regexp"
	"slices"
	"testing"

	"sluice/xdp/abi"
)

func TestEveryReasonHasALabelATextAndAFate(t *testing.T) {
	label := regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	seen := map[string]bool{}
	for r := range abi.ReasonMax {
		if !label.MatchString(r.String()) || seen[r.String()] {
			t.Errorf("reason %d: label %q is malformed or taken", uint32(r), r)
		}
		seen[r.String()] = true
		if r.Text() == "" {
			t.Errorf("%s has no text", r)
		}
		if f := r.Fate().String(); !slices.Contains([]string{"pass", "drop", "stack", "answer", "redirect"}, f) {
			t.Errorf("%s has the fate %s", r, f)
		}
	}
	if abi.ReasonMax > abi.ReasonSlots {
		t.Errorf("%d reasons, %d slots", abi.ReasonMax, abi.ReasonSlots)
	}
}

func TestReasonsReadAsInTheHeader(t *testing.T) {
	if r := abi.ReasonDefaultDrop; r != 10 || r.String() != "default-drop" || r.Fate() != abi.FateDrop ||
		r.Text() != "no rule accepts it and the default is drop" {
		t.Errorf("%d %s %s %q", uint32(r), r, r.Fate(), r.Text())
	}
	if f := abi.ReasonStackTTL.Fate(); f != abi.FateStack {
		t.Errorf("stack-ttl has the fate %s", f)
	}
}

func TestAReasonOfANewerVersionIsShownAsANumber(t *testing.T) {
	r := abi.Reason(120)
	if r.String() != "reason-120" || r.Fate() != abi.FateDrop || r.Text() == "" {
		t.Errorf("%s %s %q", r, r.Fate(), r.Text())
	}
}
