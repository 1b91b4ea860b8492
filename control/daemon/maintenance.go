package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice/control/api"
	"sluice/control/disk"
	"sluice/control/engine"
	"sluice/control/host"
	"sluice/control/node"
	"sluice/control/node/source"
)

// The maintenance state: nothing that was accepted can be brought about, and yet somebody must get at the box. The daemon serves its API,
// the kernel forwards nothing, and the management addresses of the last confirmed configuration stand. An apply ends it.

// managementName is the file that remembers those addresses beside the revisions: it can be read where they cannot.
const managementName = "management.json"

type management struct {
	Schema int        `json:"schema"`
	Host   host.State `json:"host"`
	Node   node.State `json:"node"` // who may log in
}

const managementSchema = 1

// maintain enters the maintenance state, where the start made nothing of a revision. A data path that an earlier process left is what is
// in force: then everything stays as it is.
func (d *Daemon) maintain(ctx context.Context, why error) {
	number, _, desired := d.engine.Current()
	if !d.opts.Maintenance || number != 0 && desired != nil || d.adopts(ctx) {
		return
	}
	text := "no revision stands, and the daemon does without one"
	if why != nil {
		text = why.Error()
	}
	m, unread := readManagement(d.state)
	stopped := host.StopForwarding()
	reach, brought := d.bringManagement(ctx, m)
	if err := errors.Join(stopped, unread, brought); err != nil {
		text += fmt.Sprintf("; and %v", err)
	}
	if !strings.HasSuffix(text, "?") { // as in: did you mean node?
		text += "."
	}
	message := fmt.Sprintf("%s Nothing is forwarded; %s. %s", text, reach, d.wayOut(m))
	d.opts.Log.Error("maintenance state", "why", message)
	d.engine.SetCondition(engine.ConditionMaintenance, engine.True, "NoRevision", message)
	d.maintained.Store(true)
}

// bringManagement brings up what the last confirmed configuration was managed by, as far as it goes, and says what that is.
func (d *Daemon) bringManagement(ctx context.Context, m management) (reach string, err error) {
	if len(m.Host.Addresses) == 0 { // a login at the console needs none
		return "no management addresses are known from before, " + d.console(m), add(ctx, d.node, m.Node)
	}
	errs := []error{add(ctx, d.host, m.Host), add(ctx, d.node, m.Node)}
	reach = "the box has its last management addresses:"
	for _, a := range m.Host.Addresses {
		reach += fmt.Sprintf(" %s on %s", a.Prefix, a.Link)
	}
	return reach, errors.Join(errs...)
}

// wayOut says how the maintenance state is ended: on a node image nobody logs in but whom the last configuration let in.
func (d *Daemon) wayOut(m management) string {
	const apply, stick = "run: sluice apply -c FILE", "put a good sluice.yaml on a stick or on partition 2, and restart"
	b := d.boot()
	switch {
	case d.opts.Image == "":
		return "Mend the file and " + apply
	case b != nil && b.Held:
		return "No configuration is taken until the data partition is open: see what the boot found"
	case m.Node.Console == nil && (m.Node.SSH == nil || len(m.Host.Addresses) == 0):
		return "To end it, " + stick
	}
	return "To end it, log in and " + apply + "; or " + stick
}

// console says who gets in where no address leads to the box.
func (d *Daemon) console(m management) string {
	if d.opts.Image != "" && m.Node.Console == nil {
		return "and nobody can log in"
	}
	return "so only the console leads here"
}

// add does the steps to a state that take nothing away.
func add[S any, O engine.Op](ctx context.Context, d engine.Driver[S, O], want S) error {
	have, err := d.Observe(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, op := range d.Diff(have, want) {
		if !op.Teardown() {
			errs = append(errs, d.Apply(ctx, op))
		}
	}
	return errors.Join(errs...)
}

func readManagement(state string) (m management, err error) {
	b, err := os.ReadFile(filepath.Join(state, managementName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	} else if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return management{}, fmt.Errorf("%s: %w", managementName, err)
	}
	return m, nil
}

// keepManagement remembers how the box is managed, each time that a configuration is confirmed.
func (d *Daemon) keepManagement(ctx context.Context) error {
	if !d.opts.Maintenance {
		<-ctx.Done()
		return nil
	}
	for {
		d.rememberManagement()
		select {
		case <-ctx.Done():
			return nil
		case <-d.confirmed:
		}
	}
}

func (d *Daemon) rememberManagement() {
	number, _, desired := d.engine.Current()
	if number == 0 || desired == nil || d.engine.Pending() != nil {
		return
	}
	b, err := json.MarshalIndent(management{Schema: managementSchema, Host: desired.Host.Reach(), Node: desired.Node}, "", "  ")
	if err == nil {
		path := filepath.Join(d.state, managementName)
		if before, _ := os.ReadFile(path); bytes.Equal(before, b) {
			return
		}
		err = disk.Replace(path, b)
	}
	d.faults.Wrote(managementName, err)
}

// revised follows what happened to a revision, while no other operation of the engine can begin: what is live now ends the maintenance
// state, and may be managed in another way. A first one that went back leaves none.
func (d *Daemon) revised(n engine.Notice) {
	switch n.Kind {
	case engine.NoticeReverted:
		if number, _, _ := d.engine.Current(); number == 0 {
			d.maintain(context.Background(), fmt.Errorf("revision %d went back: %s", n.Revision, n.Text))
		}
	case engine.NoticeApplied, engine.NoticePending, engine.NoticeHealthy, engine.NoticeConfirmed:
		if d.maintained.Swap(false) {
			d.engine.SetCondition(engine.ConditionMaintenance, "", "", "")
		}
		select {
		case d.confirmed <- struct{}{}:
		default:
		}
	}
}

// boot is where FILE came from; nil: somebody put it there. A record that cannot be read is a problem of the boot.
func (d *Daemon) boot() *api.Boot {
	b, err := source.Seen(filepath.Dir(d.opts.File), d.opts.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		b.Problems = append(b.Problems, err.Error())
	}
	return &b
}
