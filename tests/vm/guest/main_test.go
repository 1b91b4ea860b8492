//go:build vmguest

package guest

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/crypto/ipsec"
	tunneld "sluice/crypto/wireguard/child"
	"sluice/tests/pindir"
)

// dirs are directories of pins: an emulated processor takes half a minute to verify the programs of a site.
var dirs = pindir.NewLender("guest")

// TestMain is also the processes that drivers make of this binary: that of a userspace tunnel, and the holder of a port.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == tunneld.Verb:
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		err = tunneld.Run(ctx, os.Args[2], "test")
	case len(os.Args) > 1 && os.Args[1] == ipsec.HolderVerb:
		err = ipsec.Hold(context.Background(), os.Args[2:], "test")
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
