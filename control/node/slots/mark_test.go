package slots

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRollbackAndForth(t *testing.T) {
	n := standing(t)
	n.setVar(t, varDefault, "sluice_1.1.efi")
	for range 2 { // saying it twice is no harm
		if got, err := n.Rollback(); err != nil || got.Next != "1.0" {
			t.Fatalf("%+v %v", got, err)
		}
		if got, want := n.files(t), []string{"sluice_1.0.efi", "sluice_1.1+0.efi"}; !slices.Equal(got, want) {
			t.Errorf("there are %q, want %q", got, want)
		}
	}
	if s, err := n.Status(); err != nil || s.Next != "1.0" || s.Forced != "" || s.Slots[1].State != Aside || s.Slots[1].Why != "" {
		t.Errorf("%+v %v", s, err)
	}
	n.boot(t, "1.0")
	if got, err := n.Rollback(); err != nil || got.Next != "1.1" {
		t.Fatalf("%+v %v", got, err)
	}
	if got, want := n.files(t), []string{"sluice_1.0.efi", "sluice_1.1.efi"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	// The one that runs is to stay after all.
	if got, err := n.Promote(); err != nil || got.Next != "1.0" {
		t.Fatalf("%+v %v", got, err)
	}
}

func TestWhatCannotBeRolledBackTo(t *testing.T) {
	for _, c := range []struct {
		files []string
		want  string
	}{
		{[]string{"sluice_1.1.efi"}, "no other version on this node than 1.1"},
		{[]string{"sluice_1.1.efi", "sluice_1.2+3.efi"}, "a reboot tries it, `sluice image promote` keeps 1.1"},
		{[]string{"sluice_1.1.efi", "sluice_1.2+0-3.efi"}, "used up its 3 tries: it left no word"},
		{[]string{"sluice_1.0+2-1.efi", "sluice_1.1.efi"}, "1.0 has not passed a trial: it left no word"},
		// Two names of one file: a rename onto the other would free what both have.
		{[]string{"sluice_1.0.efi", "sluice_1.1+2-1.efi", "sluice_1.1.efi"}, "are one version: a power cut fell into a rename"},
	} {
		n := newNode(t, "1.1", c.files...)
		if _, err := n.Rollback(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.files, err, c.want)
		}
		if got := n.files(t); !slices.Equal(got, c.files) {
			t.Errorf("there are %q, want %q", got, c.files)
		}
	}
	if _, err := newNode(t, "1.1", "sluice_1.1.efi").Rollback(); !errors.Is(err, ErrNoOther) {
		t.Error(err)
	}
}

// The gate of an update that is well may meet somebody who changes the slots: it waits, and what was done by hand stands.
func TestKeepWaitsAndLetsARollbackStand(t *testing.T) {
	n := newNode(t, "1.1", "sluice_1.0+3.efi", "sluice_1.1.efi")
	n.try(t, "sluice_1.0+3.efi")
	unlock, err := n.lock(unix.LOCK_NB)
	if err != nil {
		t.Fatal(err)
	}
	kept := make(chan error)
	go func() { kept <- n.Keep() }()
	select {
	case err := <-kept:
		t.Fatal("it did not wait:", err)
	default:
		unlock()
	}
	if err := <-kept; err != nil {
		t.Fatal(err)
	}
	if got, want := n.files(t), []string{"sluice_1.0+2-1.efi", "sluice_1.1+0.efi"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	if _, err := n.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := n.Keep(); err != nil {
		t.Fatal(err)
	}
	if s, err := n.Status(); err != nil || s.Next != "1.1" {
		t.Errorf("%+v %v", s, err)
	}
}

func TestStatus(t *testing.T) {
	n := standing(t)
	if _, err := n.Install(t.Context(), n.release(t, "1.2"), InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	state := func(want ...SlotState) Status {
		t.Helper()
		s, err := n.Status()
		if err != nil {
			t.Fatal(err)
		}
		var got []SlotState
		for _, one := range s.Slots {
			got = append(got, one.State)
		}
		if !slices.Equal(got, want) {
			t.Errorf("states %q, want %q: %+v", got, want, s)
		}
		return s
	}
	if s := state(Staged, Good); s.Next != "1.2" || s.Running != "1.1" || s.Trial || *s.Slots[0].TriesLeft != 3 {
		t.Errorf("%+v", s)
	}
	at := n.try(t, "sluice_1.2+3.efi")
	if s := state(Trying, Good); !s.Trial || s.Next != "1.2" || *s.Slots[0].TriesLeft != 2 || !s.Slots[0].Running {
		t.Errorf("%+v", s)
	}
	at = n.try(t, at.File())
	at = n.try(t, at.File())
	if s := state(Good, Trying); !s.Trial || s.Next != "1.1" {
		t.Errorf("during the last try: %+v", s)
	}
	if err := n.efi.unset(varCounted); err != nil {
		t.Fatal(err)
	}
	n.boot(t, "1.1")
	if s := state(Good, Failed); s.Trial || s.Next != "1.1" || !strings.Contains(s.Slots[1].Why, "it left no word") || at.Done != 3 {
		t.Errorf("%+v", s)
	}
	n.write(t, n.esp("sluice_1.3+3.efi.new"), nil)
	n.write(t, n.esp("sluice_1.2.efi"), image("1.2"))
	n.write(t, n.esp("sluice_1.5.efi"), nil)
	n.write(t, n.esp("sluice_1.1+3.efi.new"), nil)
	n.write(t, n.esp("other.new"), nil)
	if s, err := n.Status(); err != nil || !strings.Contains(s.Note, "are one version") || !strings.Contains(s.Note, "sluice_1.3+3.efi.new is left") ||
		!strings.Contains(s.Note, "sluice_1.5.efi is empty") || s.Next != "1.2" ||
		!strings.Contains(s.Note, "sluice_1.1+3.efi.new may be another name of the slot that is kept") || strings.Contains(s.Note, "other.new") {
		t.Errorf("%+v %v", s, err)
	}
}
