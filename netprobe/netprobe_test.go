package netprobe

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestWhatIsTriedIsSeenInsideAlone(t *testing.T) {
	const name = "sluice-trial"
	said, err := Try(t.Context(), func(nl *netlink.Handle) (string, error) {
		if err := nl.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "1"}); err != nil {
			return "", err
		}
		out, err := exec.Command("ip", "-o", "link").CombinedOutput()
		return string(out), err
	})
	if err != nil || !strings.Contains(said, name) || strings.Count(said, "\n") != 3 {
		t.Errorf("a program inside sees %q, %v", said, err)
	}
	if _, err := netlink.LinkByName(name); err == nil {
		t.Error("it is seen outside")
	}
}

func TestErrorsAreHandedOnAndNobodyIsWaitedForWithoutEnd(t *testing.T) {
	wrong := errors.New("wrong")
	if _, err := Try(t.Context(), func(*netlink.Handle) (int, error) { return 0, wrong }); !errors.Is(err, wrong) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stuck := make(chan struct{})
	defer close(stuck)
	_, err := Try(ctx, func(*netlink.Handle) (int, error) {
		cancel()
		<-stuck
		return 0, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
