package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"sluice/control/api"
)

// herald tells the service manager how the daemon is: sd_notify(3). It is the last of the tasks, so that all others are ready once it
// runs. Without NOTIFY_SOCKET nobody is told anything.
type herald struct {
	alive    func(context.Context) error // whether the main loops answer
	status   func() string
	changed  <-chan struct{} // the status may be another one
	watchdog time.Duration   // WatchdogSec=; 0: nobody waits for a sign of life
	log      *slog.Logger
}

func (d *Daemon) herald() herald {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		d.opts.Log.Warn("no watchdog", "error", err)
	}
	return herald{alive: d.alive, status: d.statusLine, changed: d.told, watchdog: watchdog, log: d.opts.Log}
}

// idleStatus is how often the status is told anew where no watchdog asks.
const idleStatus = time.Minute

// run tells until ctx ends. A sign of life is given for a proof alone: should the main loops hang, the service manager ends the process,
// and its next start adopts the data path.
func (h herald) run(ctx context.Context) error {
	h.notify(daemon.SdNotifyReady, "STATUS="+h.status())
	every := cmp.Or(h.watchdog/4, idleStatus)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if h.watchdog > 0 {
			h.prove(ctx, every)
		}
	quiet:
		for {
			select {
			case <-ctx.Done():
				h.notify(daemon.SdNotifyStopping)
				return nil
			case <-h.changed:
				h.notify("STATUS=" + h.status())
			case <-tick.C:
				h.notify("STATUS=" + h.status())
				break quiet
			}
		}
	}
}

// prove gives a sign of life where there is life.
func (h herald) prove(ctx context.Context, within time.Duration) {
	asking, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	switch err := h.alive(asking); {
	case err == nil:
		h.notify(daemon.SdNotifyWatchdog)
	case ctx.Err() == nil:
		h.log.Error("no sign of life for the watchdog", "error", err, "watchdog", h.watchdog)
		h.notify("STATUS=hangs: " + err.Error())
	}
}

func (h herald) notify(lines ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		h.log.Warn("the service manager is not told", "error", err)
	}
}

// alive asks what must answer whatever else goes on: the API, by its own socket, and the engine.
func (d *Daemon) alive(ctx context.Context) error {
	client := api.NewClient(d.opts.Socket)
	defer client.Close()
	var refusal *api.Failure
	if _, err := client.History(ctx); err != nil && !errors.As(err, &refusal) {
		return fmt.Errorf("the API does not answer: %w", err)
	}
	return d.engine.Alive(ctx)
}

// statusLine is one line for `systemctl status`: it waits for nobody.
func (d *Daemon) statusLine() string {
	number, live, desired := d.engine.Current()
	name := "no name"
	if live.Config != nil && live.Config.Node.Name != "" {
		name = live.Config.Node.Name
	}
	line := name + ", no revision"
	if number != 0 {
		line = fmt.Sprintf("%s, revision %d", name, number)
	}
	if desired != nil && desired.XDP.Digest != "" {
		line += fmt.Sprintf(", XDP generation %.12s", desired.XDP.Digest)
	}
	if p := d.engine.Pending(); p != nil {
		line += fmt.Sprintf(", pending for %s more", time.Duration(p.Remaining*float64(time.Second)).Round(time.Second))
	}
	if d.engine.Busy() {
		line += ", at work"
	}
	return line
}

// tell has the service manager hear of another status soon.
func (d *Daemon) tell() {
	select {
	case d.told <- struct{}{}:
	default:
	}
}
