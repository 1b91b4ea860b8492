package daemon

import (
	"errors"
	"testing"

	"sluice/control/engine"
	"sluice/crypto/ike"
	"sluice/crypto/ipsec"
)

func TestTheConditionOfCharonFollowsItsEvents(t *testing.T) {
	away := map[string]string{}
	gone := func(socket, why string) ipsec.Event {
		return ipsec.Event{Kind: ike.CharonGone, Socket: socket, Err: errors.New(why)}
	}
	for _, step := range []struct {
		event   ipsec.Event
		value   engine.ConditionValue
		message string
		told    bool
	}{
		{ipsec.Event{Kind: ike.CharonBack, Socket: "a"}, engine.True, "", true},
		{ipsec.Event{Kind: ike.PeerDown, Tunnel: "fra1", Peer: "b"}, "", "", false},
		{gone("a", "start a"), engine.False, "start a", true},
		{gone("b", "start b"), engine.False, "start a; and start b", true},
		{ipsec.Event{Kind: ike.CharonBack, Socket: "a"}, engine.False, "start b", true},
		{ipsec.Event{Kind: ike.CharonBack, Socket: "b"}, engine.True, "", true},
		{gone("a", "start a"), engine.False, "start a", true},
		{ipsec.Event{Kind: ike.CharonIdle, Socket: "a"}, "", "", true}, // no tunnel needs it any more
	} {
		value, _, message, told := charonCondition(away, step.event)
		if value != step.value || message != step.message || told != step.told {
			t.Errorf("%+v: %q %q %v, want %q %q %v", step.event, value, message, told, step.value, step.message, step.told)
		}
	}
}
