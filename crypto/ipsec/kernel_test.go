package ipsec

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"sluice/crypto/keys"
	"sluice/process"
	"sluice/tests/nstest"
)

// What needs a kernel with ESP is tested in tests/vm; here, what a kernel without it answers.
func TestAKernelWithoutESPIsToldWhatItLacks(t *testing.T) {
	lacks, err := Missing(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "master")
	if err := keys.GeneratePSK(secret); err != nil {
		t.Fatal(err)
	}
	want := site()
	for i := range want.Tunnels[0].Peers {
		want.Tunnels[0].Peers[i].SecretFile = secret
	}
	err = inSpace(func() error { return apply(t.TempDir(), want) })
	if len(lacks) == 0 {
		if err != nil {
			t.Errorf("the kernel has all, and yet: %v", err)
		}
		return
	}
	if !errors.Is(err, ErrNoModule) {
		t.Fatalf("error %v", err)
	}
	for _, says := range append(lacks, "create tunnel fra1", "modprobe", "type: wireguard") {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("error %q does not say %q", err, says)
		}
	}
}

func TestAMachineWithoutTunnelsIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := inSpace(func() error { return apply(dir, State{}) }); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left in the state directory: %v, %v", left, err)
	}
}

func TestATunnelIsRemovedThoughTheDiskIsFullAndItsEpochsAreWrittenOnceThereIsRoom(t *testing.T) {
	n := newNode(t)
	ns := nstest.New(t)
	n.nl, n.wake, n.charons = ns.Handle, make(chan struct{}, 1), &charons{}
	n.register(wanted("fra1", "b"))
	sent := n.send("fra1", "b")
	obstacle := filepath.Join(n.dir, "ipsec", "fra1.json.new", "in the way")
	if err := os.MkdirAll(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	var told error
	n.opts.Wrote = func(_ string, err error) { told = err }
	ns.Do(t, func() error { return n.remove(t.Context(), "fra1") })
	if told == nil || !n.anyToKeep() || len(n.wake) != 1 {
		t.Errorf("told %v; the keeper has something to do: %v, and is woken: %d", told, n.anyToKeep(), len(n.wake))
	}
	crashed := &node{t: t, dir: n.dir, now: n.now, used: n.used}
	crashed.boot()
	if top := crashed.tunnels["fra1"].top(); top != sent {
		t.Errorf("after a crash the highest epoch is %d, and %d was used", top, sent)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := n.save(); err != nil || told != nil || n.anyToKeep() {
		t.Errorf("with room: %v, told %v; something is left to do: %v", err, told, n.anyToKeep())
	}
	n.boot()
	if x := n.tunnels["fra1"]; x.want.Name != "" || x.top() != sent {
		t.Errorf("the disk has tunnel %q, highest %d", x.want.Name, x.top())
	}
}

// inSpace runs f on a thread in a network namespace of its own, which ends with it.
func inSpace(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		ns, err := netns.New()
		if err == nil {
			defer ns.Close()
			err = f()
		}
		done <- err
	}()
	return <-done
}

// apply brings a new driver's machine to want, looks on for a moment as the daemon does, and takes all down.
func apply(dir string, want State) error {
	d, err := New(slog.New(slog.DiscardHandler), Options{StateDir: dir})
	if err != nil {
		return err
	}
	defer d.Stop()
	ctx := context.Background()
	have, err := d.Observe(ctx)
	if err != nil {
		return err
	}
	for _, op := range Diff(have, want) {
		if err := d.Apply(ctx, op); err != nil {
			return errors.Join(err, d.Down(ctx))
		}
	}
	d.inspect(true)
	if _, err := d.Status(ctx); err != nil {
		return err
	}
	return d.Down(ctx)
}

func TestTheHolderOfAPortIsKnownByItsLock(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "esp-x.lock")
	if pid, err := process.LockedBy(lock); pid != 0 || err != nil {
		t.Errorf("without a file: %d, %v", pid, err)
	}
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if pid, err := process.LockedBy(lock); pid != 0 || err != nil {
		t.Errorf("without a holder: %d, %v", pid, err)
	}
	if err := process.EndLocked(lock); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(lock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock of nobody stays: %v", err)
	}
	for _, args := range [][]string{nil, {lock}, {lock, "nonsense"}} {
		if _, err := hold(args, "test"); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
