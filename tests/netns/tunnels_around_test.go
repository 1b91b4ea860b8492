package netns

import (
	"fmt"
	"testing"
)

// TestAPrefixThatBecomesTheDefaultLosesNoPacket, nor does one that is no longer: the routes of either stand in a table of their own, and each has
// its blackhole.
func TestAPrefixThatBecomesTheDefaultLosesNoPacket(t *testing.T) {
	t.Parallel()
	s := newTunnels(t, nil)
	e := s.startEchoes(s.Workload(1), innerHost)
	e.more(50)
	at := func(prefix string, metric int) string {
		return fmt.Sprintf("prefixes: [%s]\n        metric: %d", prefix, metric)
	}
	const office, all = "10.20.0.0/16", "0.0.0.0/0"
	for range 4 {
		for _, move := range [][2]string{{office, all}, {all, office}} {
			s.edit(at(move[0], 100), at(move[1], 100), at(move[0], 200), at(move[1], 200))
			s.apply()
			e.more(20)
		}
	}
	e.loses(0, "over the moves")
}
