package ipsec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"testing"

	"sluice/process"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// TestMain is also the holder that a driver makes of this binary.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != HolderVerb {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	if err := Hold(ctx, os.Args[2:], "test"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestHoldersTellTheirProgramAndAreExchanged(t *testing.T) {
	if err := inSpace(func() error { return exchangeHolder(t) }); err != nil {
		t.Fatal(err)
	}
}

// exchangeHolder is the test, in a network namespace of its own.
func exchangeHolder(t *testing.T) error {
	d, err := New(slog.New(slog.DiscardHandler), Options{StateDir: t.TempDir(), Holder: []string{"/proc/self/exe", HolderVerb}})
	if err != nil {
		return err
	}
	defer d.Stop()
	local := netip.MustParseAddrPort("192.0.2.1:4500")
	for name, encapsulation := range map[string]Encapsulation{"muc2": UDP, "muc1": UDP, "par1": None} {
		d.tunnels[name] = &tunnel{want: Tunnel{Name: name, Local: local, Encapsulation: encapsulation}}
	}
	lock := d.lockOf(local)
	holder := func() (Holder, error) {
		list, err := d.Holders()
		want := []Holder{{Local: local, Tunnels: []string{"muc1", "muc2"}, Program: "test"}}
		if diff := cmp.Diff(want, list, cmpopts.IgnoreFields(Holder{}, "PID"), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" || err != nil {
			return Holder{}, fmt.Errorf("holders: %v\n%s", err, diff)
		}
		return list[0], nil
	}
	if list, err := d.Holders(); err != nil || len(list) != 0 {
		t.Errorf("before one is started: %v, %v", list, err)
	}
	if err := d.startHolder(lock, local); err != nil {
		return err
	}
	defer process.EndLocked(lock)
	before, err := holder()
	if err != nil {
		return err
	}
	if err := os.WriteFile(lock, nil, 0o600); err != nil { // as a holder from before leaves it
		return err
	}
	if list, err := d.Holders(); err != nil || len(list) != 1 || list[0].Program != "" || list[0].PID != before.PID {
		t.Errorf("one from before holders told: %+v, %v", list, err)
	}
	if err := d.RestartHolder("muc2"); err != nil {
		return err
	}
	now, err := holder()
	if err == nil && now.PID == before.PID {
		err = errors.New("the same process holds the port")
	}
	for _, name := range []string{"par1", "nix"} {
		if err := d.RestartHolder(name); !errors.Is(err, ErrNoProcess) {
			t.Errorf("restart of %s: %v", name, err)
		}
	}
	return err
}
