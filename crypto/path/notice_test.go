package path

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlyRoutesOfOursAreOurOwnDoing(t *testing.T) {
	body := func(protocol byte) []byte { return []byte{unix.AF_INET, 24, 0, 0, unix.RT_TABLE_MAIN, protocol, 0, 0} }
	for _, c := range []struct {
		what string
		kind uint16
		body []byte
		own  bool
	}{
		{"a route of ours that comes", unix.RTM_NEWROUTE, body(Protocol), true},
		{"one that goes", unix.RTM_DELROUTE, body(Protocol), true},
		{"a route of the kernel", unix.RTM_NEWROUTE, body(unix.RTPROT_KERNEL), false},
		{"a route that BGP learned", unix.RTM_NEWROUTE, body(Protocol - 1), false},
		{"a link, whatever stands there", unix.RTM_NEWLINK, body(Protocol), false},
		{"an address", unix.RTM_NEWADDR, body(Protocol), false},
		{"half a message", unix.RTM_NEWROUTE, body(Protocol)[:5], false},
		{"nothing", unix.RTM_NEWROUTE, nil, false},
	} {
		if got := OwnNotice(c.kind, c.body); got != c.own {
			t.Errorf("%s: %v, want %v", c.what, got, c.own)
		}
	}
}
