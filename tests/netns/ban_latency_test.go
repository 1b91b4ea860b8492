package netns

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// TestBansOneByOneUnderAFlood logs how long the API takes for a ban; what a clock shows here depends on what else runs.
func TestBansOneByOneUnderAFlood(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	ended := make(chan error, 1)
	go func() {
		_, err := lab.Flood{Rate: 50000, Duration: 5 * time.Second}.Run(t.Context(), s.Site)
		ended <- err
	}()
	var took []time.Duration
	for i := range 100 {
		took = append(took, s.ban(api.BanRequest{Targets: []string{fmt.Sprintf("10.66.0.%d", 1+i)}, ForSeconds: 3600, Why: "one by one"}))
	}
	slices.Sort(took)
	t.Logf("100 bans under a flood: median %s, p99 %s, max %s", took[50], took[98], took[99])
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := len(show[api.Bans](s, "bans").Bans); n != 100 {
		t.Errorf("%d bans, want 100", n)
	}
}
