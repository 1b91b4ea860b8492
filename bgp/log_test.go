package bgp

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestANeighborThatDialsInVainIsLoggedOnceAMinute(t *testing.T) {
	var out strings.Builder
	h := slog.NewTextHandler(&out, nil)
	of := newSessions(slog.New(slog.DiscardHandler))
	begin := time.Unix(1000, 0)
	for _, address := range []string{"198.18.0.1", "198.18.0.5"} {
		of.add(Neighbor{Address: netip.MustParseAddr(address)})
		peer := tap{Handler: h, of: of}.WithAttrs([]slog.Attr{slog.String("Key", address)})
		for second := range 150 {
			r := slog.NewRecord(begin.Add(time.Duration(second)*time.Second), slog.LevelWarn, "Closed an accepted connection", 0)
			if err := peer.Handle(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := strings.Count(out.String(), "Closed"); got != 6 {
		t.Errorf("%d lines of two neighbors in 150 seconds:\n%s", got, out.String())
	}
}
