package netns

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// removePins removes what is pinned now, in a room of it or everywhere. Meanwhile the daemon may pin it anew, so that rooms stay.
func (s *site) removePins(room string) {
	s.t.Helper()
	if err := os.RemoveAll(filepath.Join(s.Gateway.BPFDir, room)); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
		s.t.Fatal(err)
	}
}

// TestAnApplyAfterSomebodyRemovedThePinsSaysWhatItMended: and what the daemon writes into tables of its own, bans here, holds on.
func TestAnApplyAfterSomebodyRemovedThePinsSaysWhatItMended(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	ban := api.BanRequest{Targets: []string{lab.Client4.String()}, ForSeconds: 600, Why: "a test"}
	s.ban(ban)
	s.silent(s.Client, lab.Web4[0], 80)
	s.removePins("")
	said := s.apply()
	for _, step := range []string{"  tc: attach tcx on eth0 as uplink\n", "  xdp: attach XDP on eth0 in mode "} {
		if !strings.Contains(said, step) {
			t.Errorf("apply does not say %q:\n%s", step, said)
		}
	}
	if said := s.apply(); !strings.HasPrefix(said, "nothing to do: ") || strings.Contains(said, "by itself") {
		t.Errorf("another apply:\n%s", said)
	}
	s.silent(s.Client, lab.Web4[0], 80)
	s.unban(ban.Targets...)
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	s.ban(ban)
	s.silent(s.Client, lab.Web4[0], 80)
}
