package netdump

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestADumpThatAChangeInterruptsIsMadeAgain(t *testing.T) {
	broken := errors.New("broken")
	interrupted := fmt.Errorf("dump: %w", netlink.ErrDumpInterrupted)
	for name, c := range map[string]struct {
		errs  []error // of the calls; the last one stays
		calls int
		want  []int // the number of the call that was believed
		err   error
	}{
		"at rest":              {[]error{nil}, 1, []int{1}, nil},
		"a change or two":      {[]error{interrupted, interrupted, nil}, 3, []int{3}, nil},
		"changes all the time": {[]error{interrupted}, tries, []int{tries}, nil},
		"another error":        {[]error{interrupted, broken}, 2, nil, broken},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			got, err := List(func() ([]int, error) {
				err := c.errs[min(calls, len(c.errs)-1)]
				calls++
				if errors.Is(err, broken) {
					return nil, err
				}
				return []int{calls}, err
			})
			if !slices.Equal(got, c.want) || !errors.Is(err, c.err) || calls != c.calls {
				t.Errorf("%d calls give %v, %v; want %d, %v, %v", calls, got, err, c.calls, c.want, c.err)
			}
		})
	}
}

// busy is a kernel whose routes change during every dump but those after calm.
type busy struct{ dumps, calm int }

func (b *busy) RouteListFilteredIter(_ int, _ *netlink.Route, _ uint64, f func(netlink.Route) bool) error {
	b.dumps++
	for i := range b.dumps {
		f(netlink.Route{Priority: i})
	}
	if b.dumps > b.calm {
		return nil
	}
	return netlink.ErrDumpInterrupted
}

func TestRoutesThatNeverRestAreThoseOfTheLastDump(t *testing.T) {
	for _, c := range []struct{ calm, want int }{{0, 1}, {3, 4}, {1000, tries}} {
		got, err := Routes(&busy{calm: c.calm}, netlink.FAMILY_ALL, nil, 0)
		if err != nil || len(got) != c.want {
			t.Errorf("calm after %d dumps: %d routes, %v; want %d", c.calm, len(got), err, c.want)
		}
	}
}
