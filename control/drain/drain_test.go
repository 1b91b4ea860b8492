package drain

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"sluice/control/compile"
	"sluice/control/engine"
	"sluice/tests/nstest"
)

// rig is a Switch whose engine does what it is asked, or fails.
type rig struct {
	*Switch
	path    string
	fail    atomic.Bool
	nothing atomic.Bool // is live
	altered chan string // why
	notices chan State
}

var errBusy = errors.New("busy")

func newRig(t *testing.T, path string) *rig {
	t.Helper()
	r := &rig{path: path, altered: make(chan string, 100), notices: make(chan State, 100)}
	r.Switch = New(Options{
		Path: path, Log: slog.New(slog.DiscardHandler), Notify: func(s State) { r.notices <- s },
		Alter: func(_ context.Context, a engine.Alteration) error {
			defer func() { r.altered <- a.Why }()
			if r.nothing.Load() {
				return engine.ErrNothingLive
			}
			err := errors.Join(a.Begin(), a.Judge(nil), a.Keep())
			if r.fail.Load() {
				err = errors.Join(errBusy, a.Undo())
			}
			return err
		},
	})
	if err := r.Load(); err != nil {
		t.Fatal(err)
	}
	return r
}

// runs starts Run until the test ends.
func (r *rig) runs(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (r *rig) is(t *testing.T, phase compile.Drain) {
	t.Helper()
	if got := r.Phase(); got != phase {
		t.Fatalf("phase %d, want %d", got, phase)
	}
}

func TestADrainWaitsThenWithdrawsAndIsEndedByUndrain(t *testing.T) {
	r := newRig(t, filepath.Join(t.TempDir(), "drain.json"))
	r.is(t, compile.DrainNone)
	r.runs(t)
	ctx, cancel := context.WithCancel(t.Context())
	answers := make(chan error, 1)
	go func() {
		_, err := r.Begin(ctx, time.Hour, "ann")
		answers <- err
	}()
	<-r.notices
	r.is(t, compile.DrainGraceful)
	cancel()
	if err := <-answers; !errors.Is(err, context.Canceled) {
		t.Fatalf("who waits no longer gets %v", err)
	}
	r.is(t, compile.DrainGraceful)

	// Again, and sooner: the first one's word stands but for the time.
	state, err := r.Begin(t.Context(), 0, "bob")
	if err != nil || !state.Done || state.By != "ann" {
		t.Fatalf("drained: %+v (%v)", state, err)
	}
	r.is(t, compile.DrainWithdrawn)
	if again, err := r.Begin(t.Context(), time.Hour, "bob"); err != nil || again != state {
		t.Errorf("drained again: %+v (%v), want %+v", again, err, state)
	}
	for _, want := range []string{"drain", "drain sooner", withdrawal} {
		if why := <-r.altered; why != want {
			t.Errorf("the machine was altered for %q, want %q", why, want)
		}
	}

	if before, err := r.End(t.Context()); err != nil || !before.Done {
		t.Errorf("undrain: %+v (%v)", before, err)
	}
	r.is(t, compile.DrainNone)
	if before, err := r.End(t.Context()); err != nil || before.On() {
		t.Errorf("undrain again: %+v (%v)", before, err)
	}
	if _, err := os.Stat(r.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after undrain %s is there (%v)", r.path, err)
	}
}

func TestADrainOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drain.json")
	first := newRig(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := first.Begin(ctx, time.Hour, "ann"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	second := newRig(t, path)
	second.is(t, compile.DrainGraceful)
	second.runs(t)
	if _, err := second.Begin(t.Context(), 0, "ann"); err != nil {
		t.Fatal(err)
	}
	newRig(t, path).is(t, compile.DrainWithdrawn)

	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := New(Options{Path: path, Log: slog.New(slog.DiscardHandler)})
	if err := damaged.Load(); err == nil {
		t.Error("a damaged file is no error")
	}
	if got := damaged.Phase(); got != compile.DrainWithdrawn {
		t.Errorf("with a damaged file the phase is %d", got)
	}
}

func TestADrainThatFailsIsNone(t *testing.T) {
	r := newRig(t, filepath.Join(t.TempDir(), "drain.json"))
	r.fail.Store(true)
	if _, err := r.Begin(t.Context(), 0, "ann"); !errors.Is(err, errBusy) {
		t.Fatalf("error %v", err)
	}
	r.is(t, compile.DrainNone)
	if _, err := os.Stat(r.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there (%v)", r.path, err)
	}
}

func TestUndrainFreesWhoWaits(t *testing.T) {
	r := newRig(t, filepath.Join(t.TempDir(), "drain.json"))
	r.runs(t)
	answers := make(chan error, 1)
	go func() {
		_, err := r.Begin(t.Context(), time.Hour, "ann")
		answers <- err
	}()
	<-r.notices
	if _, err := r.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-answers; !errors.Is(err, ErrEnded) {
		t.Errorf("who waited gets %v", err)
	}
}

// It is an alteration, which goes around what fails without it: a degraded machine would keep the drain from its end.
func TestAWithdrawalThatFailsIsTriedAgainAndNothingHasToBeLive(t *testing.T) {
	for _, down := range []bool{false, true} {
		r := newRig(t, filepath.Join(t.TempDir(), "drain.json"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Begin(ctx, 0, "ann"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		r.fail.Store(!down)
		r.nothing.Store(down)
		r.runs(t)
		for _, want := range []string{"drain", withdrawal} {
			if why := <-r.altered; why != want {
				t.Fatalf("the machine was altered for %q, want %q", why, want)
			}
		}
		r.is(t, compile.DrainWithdrawn)
		if !down && r.State().Done {
			t.Error("a withdrawal that failed is told as done")
		}
		r.fail.Store(false)
		patient, stop := context.WithTimeout(t.Context(), 30*time.Second)
		if state, err := r.Begin(patient, 0, "ann"); err != nil || !state.Done {
			t.Errorf("drained: %+v (%v)", state, err)
		}
		stop()
	}
}

// The state changes before the disk is asked, and Run looks in between.
func TestWhatFoundNoRoomIsWrittenWhereRunHadLookedBefore(t *testing.T) {
	disk := nstest.NewDisk(t, 64)
	r := newRig(t, filepath.Join(disk.Dir, "drain.json"))
	r.opts.Notify = func(State) {
		nstest.Eventually(t, 10*time.Second, func() string { return nstest.Want("wakes that Run has not taken", len(r.wake), 0) })
		time.Sleep(50 * time.Millisecond) // by then Run waits
	}
	r.runs(t)
	disk.Fill(t)
	if err := r.alter(t.Context(), "drain", State{Since: time.Now(), Wait: time.Hour}, time.Now().Add(time.Hour)); err != nil || !r.Unkept() {
		t.Fatalf("kept on a full disk: %v (%v)", !r.Unkept(), err)
	}
	disk.Free(t)
	nstest.Eventually(t, time.Minute, func() string { return nstest.Want("unkept", r.Unkept(), false) })
	newRig(t, r.path).is(t, compile.DrainGraceful)
}

// A full disk is no reason to stay in traffic; what holds is written once there is room.
func TestABoxWithAFullDiskDrains(t *testing.T) {
	disk := nstest.NewDisk(t, 64)
	r := newRig(t, filepath.Join(disk.Dir, "drain.json"))
	r.runs(t)
	disk.Fill(t)
	state, err := r.Begin(t.Context(), 0, "ann")
	if err != nil || !state.Done {
		t.Fatalf("drained: %+v (%v)", state, err)
	}
	r.is(t, compile.DrainWithdrawn)
	if !r.Unkept() {
		t.Error("nothing says that a restart would not know")
	}
	newRig(t, r.path).is(t, compile.DrainNone)
	disk.Free(t)
	nstest.Eventually(t, time.Minute, func() string { return nstest.Want("unkept", r.Unkept(), false) })
	newRig(t, r.path).is(t, compile.DrainWithdrawn)

	disk.ReadOnly(t, true)
	if _, err := r.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.is(t, compile.DrainNone)
	disk.ReadOnly(t, false)
	nstest.Eventually(t, time.Minute, func() string { return nstest.Want("unkept", r.Unkept(), false) })
	newRig(t, r.path).is(t, compile.DrainNone)
}
