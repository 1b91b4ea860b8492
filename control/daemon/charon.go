package daemon

import (
	"context"
	"maps"
	"slices"
	"strings"

	"sluice/control/engine"
	"sluice/crypto/ike"
	"sluice/crypto/ipsec"
)

// followCharon says in Status whether charon answers, for as long as tunnels of keying ike need it.
func (d *Daemon) followCharon(ctx context.Context, events <-chan ipsec.Event) error {
	away := map[string]string{} // why, by socket
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			if notice, told := charonNotice(e); told {
				d.tunnelNotice(notice)
			}
			d.tunnels.Look() // DPD has waited long enough
			value, reason, message, told := charonCondition(away, e)
			if told {
				d.engine.SetCondition(engine.ConditionCharon, value, reason, message)
			}
		}
	}
}

// charonCondition takes an event into account; told is false where nothing is to be said of it.
func charonCondition(away map[string]string, e ipsec.Event) (value engine.ConditionValue, reason, message string, told bool) {
	switch e.Kind {
	case ike.CharonGone:
		away[e.Socket] = e.Err.Error()
	case ike.CharonBack, ike.CharonIdle:
		delete(away, e.Socket)
	default:
		return "", "", "", false
	}
	if len(away) > 0 {
		return engine.False, "Away", strings.Join(slices.Sorted(maps.Values(away)), "; and "), true
	}
	if e.Kind == ike.CharonIdle {
		return "", "", "", true
	}
	return engine.True, "Answers", "", true
}
