package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sluice/bgp"
	"sluice/bgp/bfd"
	"sluice/bgp/fib"
	"sluice/control/api"
	"sluice/control/ban"
	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/disk"
	"sluice/control/drain"
	"sluice/control/engine"
	"sluice/control/feed"
	"sluice/control/health"
	"sluice/control/host"
	"sluice/control/node"
	"sluice/control/probe"
	"sluice/control/tunnel"
	"sluice/control/workload"
	"sluice/crypto/ipsec"
	"sluice/crypto/keys"
	"sluice/crypto/path"
	"sluice/crypto/wireguard"
	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/pin"
)

// Daemon is one running gateway.
type Daemon struct {
	opts    Options
	state   string // where this version's own files lie: see disk.Format
	newer   int    // the format that a newer version left beside them; 0: none
	started time.Time

	host      *host.Host
	path      *path.Driver
	wireguard *wireguard.Driver
	ipsec     *ipsec.Driver
	tc        *tc.Subsystem
	xdp       *xdp.Subsystem
	bgp       *bgp.Subsystem
	bfd       *bfd.Keeper
	node      *node.Node
	metrics   *metrics
	prober    *probe.Prober
	engine    *engine.Engine
	parsed    config.Cache  // what the next configuration has in common with the last
	compiled  compile.Cache // what the next compilation can use of the last
	clock     engine.Clock
	bans      *ban.List
	nextHops  hopCache
	filters   filters
	feeds     *feed.List
	workloads *workload.List
	tunnels   *tunnel.Watcher
	health    *health.Watcher
	drain     *drain.Switch
	unadopted atomic.Bool // the start was degraded, and nothing has healed it since
	epochs    epochs
	endsMu    sync.Mutex
	ends      map[netip.Addr]string // whose flows may be tracked: workloads by address, as of the last change
	hub       *hub
	conntrack conntrack
	captures  captures

	faults      *disk.Faults
	unwritten   chan struct{} // tells that a file waits for room on the disk
	gone        *gone
	replaceable struct { // see replaced
		of   *compile.Desired
		list map[host.Gone]bool
	}
	policyChanged chan struct{} // tells that rules may have changed
	busy          chan struct{} // tells that something is compiled or applied
	arriving      chan struct{} // tells that a table of routes arrives
	told          chan struct{} // tells that the status line may be another one
	confirmed     chan struct{} // tells that another configuration may be the confirmed one
	maintained    atomic.Bool   // in the maintenance state

	stop context.CancelFunc // ends Run, after a down
}

// Run is the whole life of a daemon: it takes the lock, adopts what an earlier process left in the kernel, and serves
// until ctx ends. Then it leaves the data path, the tunnels' links and the routes where they are.
func Run(ctx context.Context, o Options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("the daemon needs root (CAP_NET_ADMIN, CAP_BPF, CAP_SYS_ADMIN): run it by sudo or as a service")
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w; give another --state-dir", err)
	}
	unlock, err := engine.Lock(o.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	unlockNamespace, err := lockNamespace(o.Log)
	if err != nil {
		return err
	}
	defer unlockNamespace()
	if was, err := keys.Tighten(keys.OwnDir(o.StateDir)); err != nil {
		return err
	} else if was != 0 {
		o.Log.Warn("others could look into the directory of keys: its mode is 0700 again", "directory", keys.OwnDir(o.StateDir), "was", fmt.Sprintf("%04o", was))
	}
	if err := mountBPFFS(o.BPFDir, o.Log); err != nil {
		return err
	}
	unlockPins, err := lockBPFDir(o.BPFDir)
	if err != nil {
		return err
	}
	defer unlockPins()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	d, err := build(ctx, o)
	if err != nil {
		return err
	}
	d.stop = stop
	defer func() { err = errors.Join(err, d.leave(context.WithoutCancel(ctx))) }()
	return d.run(ctx)
}

// build makes the subsystems and the engine. Nothing but the state directory is touched yet.
func build(ctx context.Context, o Options) (*Daemon, error) {
	d := &Daemon{
		opts: o, started: time.Now(), prober: probe.New(probe.Options{}), hub: newHub(), filters: newFilters(),
		policyChanged: make(chan struct{}, 1), busy: make(chan struct{}, 1), unwritten: make(chan struct{}, 1), arriving: make(chan struct{}, 1), told: make(chan struct{}, 1), confirmed: make(chan struct{}, 1),
		gone: newGone(),
	}
	d.faults = disk.NewFaults(o.Log, d.faultsChanged)
	var err error
	if d.newer, err = disk.Adopt(o.StateDir); err != nil {
		return nil, err
	}
	d.state = disk.State(o.StateDir)
	if d.host, err = host.New(o.Log, host.Options{StateDir: o.StateDir, Spare: spareLedger(o.Socket), Wrote: d.faults.Writing("host.json"), Deletes: d.gone.ours}); err != nil {
		return nil, err
	}
	if d.path, err = path.New(o.Log); err != nil {
		return nil, err
	}
	if err = d.openWireGuard(); err != nil {
		return nil, err
	}
	if d.ipsec, err = ipsec.New(o.Log, ipsec.Options{StateDir: o.StateDir, Holder: []string{"/proc/self/exe", ipsec.HolderVerb}, Wrote: d.faults.Wrote, Deletes: d.gone.ours}); err != nil {
		return nil, err
	}
	d.xdp = xdp.New(o.Log, xdp.Options{BPFDir: o.BPFDir})
	d.tc = tc.New(o.Log, tc.Options{BPFDir: o.BPFDir})
	if d.bfd, err = bfd.NewKeeper(o.Log, o.StateDir, o.BFDCommand, d.bfdTrouble); err != nil {
		return nil, err
	}
	if d.clock, err = engine.SystemClock(); err != nil {
		return nil, err
	}
	d.bgp = bgp.New(o.Log, bgp.Options{Restarting: d.adopts(ctx), BFD: d.bfd, FlowSpec: d.loadFilters(), Busy: d.arrives})
	d.metrics = newMetrics(d, o.Log)
	d.node = node.New(o.Log, node.Options{StateDir: o.StateDir})

	store, err := engine.OpenStore(d.state)
	if err != nil {
		return nil, err
	}
	d.bans = ban.New(ban.Options{
		Path: filepath.Join(d.state, "bans.json"), Open: d.openBans, Clock: d.clock, Log: o.Log, Notify: d.banNotice, Faults: d.faults,
	})
	d.feeds = feed.New(feed.Options{
		Dir: keptSets(d.state), Log: o.Log,
		Wanted: d.watchedSets, Changed: func() error { return d.engine.Recompile(ctx, "a watched set file changed") },
		Notify: d.setNotice, Report: d.reportSets, Faults: d.faults,
	})
	d.workloads = workload.New(workload.Options{
		Path: filepath.Join(d.state, "workloads.json"), Log: o.Log, Live: d.fileConfig, Alter: d.alter, Faults: d.faults,
	})
	d.openAnnouncements(ctx)
	if err := d.openTunnels(ctx); err != nil {
		return nil, err
	}
	d.engine, err = engine.New(engine.Options{
		Subsystems: d.subsystems(), Announcer: "bgp", Carriers: []string{"tc", "xdp", "host/" + host.Forwarding}, Absent: absent,
		Parse: d.parse, Compile: d.compile, Facts: d.facts, Source: d.source,
		Store: store, Clock: d.clock, Checker: checker{d}, Log: o.Log, Notify: d.engineNotice, Faults: d.faults,
		NewRuleIDs: func(ids []uint32) error { return xdp.ClearRuleHits(o.BPFDir, ids) }, Look: d.look,
	})
	return d, err
}

// absent says of a step's error that it is about an interface that is not there.
func absent(err error) bool {
	return errors.Is(err, host.ErrNoLink) || errors.Is(err, tc.ErrNoInterface) || errors.Is(err, xdp.ErrNoInterface)
}

// subsystems are in the order of the data path: blackholes stand before what they are behind; tunnels make links that the host's settings and the programs need;
// delivery to workloads stands before XDP lets packets through; announcements come last. What is wanted of tunnels lacks the
// routes of peers that are down now, whatever was known when it was compiled: see withhold.
func (d *Daemon) subsystems() []engine.Subsystem {
	return []engine.Subsystem{
		engine.Bind("path", d.path, func(w *compile.Desired) path.State { return w.Path }),
		engine.Bind("wireguard", d.wireguard, func(w *compile.Desired) wireguard.State { return d.wireguard.Wanted(w.WireGuard) }),
		engine.Bind("ipsec", d.ipsec, func(w *compile.Desired) ipsec.State { return d.ipsec.Wanted(w.IPsec) }),
		engine.Bind("host", d.host, func(w *compile.Desired) host.State { return w.Host }),
		engine.Bind("tc", d.tc, func(w *compile.Desired) tc.State { return w.TC }),
		engine.Bind("xdp", d.xdp, func(w *compile.Desired) xdp.State { return w.XDP }),
		engine.Bind("node", d.node, func(w *compile.Desired) node.State { return w.Node }),
		engine.Bind("metrics", d.metrics, func(w *compile.Desired) compile.Telemetry { return w.Telemetry }),
		engine.Bind("bgp", d.bgp, func(w *compile.Desired) bgp.State { return w.BGP }),
	}
}

// adopts says whether an earlier process left a data path that went on forwarding: then BGP restarts gracefully.
func (d *Daemon) adopts(ctx context.Context) bool {
	s, err := d.xdp.Observe(ctx)
	if err == nil && s.Digest != "" {
		return true
	}
	t, err := d.tc.Observe(ctx)
	return err == nil && t.Digest != ""
}

func (d *Daemon) run(ctx context.Context) error {
	events, err := d.host.Watch(ctx, d.deleted, host.RouteProtocol, path.Protocol)
	if err != nil {
		return err
	}
	if err := d.host.WatchReplaced(ctx, d.replaced, d.gone.unknown, host.RouteProtocol, path.Protocol, fib.Protocol); err != nil {
		return err
	}
	pins := watchPins(d.opts.BPFDir, d.gone.wake, d.opts.Log)
	defer pins.close()
	// Before the first step: a socket that cannot be had leaves the machine as it was.
	server := api.NewServer(d.opts.Socket, d, d.opts.Log)
	if err := server.Listen(); err != nil {
		return err
	}
	defer server.Close()
	d.faultsChanged()
	d.tellNewerState()
	d.host.Settle()
	// Ahead of the first generation: after a reboot no packet is let in that was banned before.
	if err := d.bans.Load(); err != nil {
		d.opts.Log.Error("no bans until this is mended", "error", err)
	}
	if err := d.workloads.Load(); err != nil {
		d.opts.Log.Error("workloads of the API are lost", "error", err)
	}
	d.loadAnnouncements()
	d.adoptTunnels(ctx)
	if err := d.begin(ctx); err != nil {
		return err
	}
	return runTasks(ctx,
		server,
		funcTask{"engine", d.engine.Run},
		funcTask{"drift", d.inspect},
		funcTask{"deletions", d.followGone},
		funcTask{"pins", pins.run},
		funcTask{"state directory", d.keepState},
		funcTask{"management addresses", d.keepManagement},
		funcTask{"link events", func(ctx context.Context) error { return d.follow(ctx, events) }},
		funcTask{"tunnel processes", d.followTunnels},
		funcTask{"tunnel underlay", d.wireguard.Run},
		funcTask{"bans", d.bans.Run},
		funcTask{"set files", d.feeds.Run},
		funcTask{"tunnels", d.tunnels.Run},
		funcTask{"health of announcements", d.health.Run},
		funcTask{"drain", d.drain.Run},
		funcTask{"BFD", d.bgp.Run},
		funcTask{"BGP events", func(ctx context.Context) error { return d.followBGP(ctx, d.bgp.Events()) }},
		funcTask{"FlowSpec rules", d.followFilters},
		funcTask{"dropped packets", d.followDrops},
		funcTask{"logged packets", d.followLogs},
		funcTask{"flow events", d.followFlows},
		funcTask{"flow tables", d.keepFlows},
		funcTask{"IPsec keys", d.ipsec.Run},
		funcTask{"charon", func(ctx context.Context) error { return d.followCharon(ctx, d.ipsec.Events()) }},
		funcTask{"rest", d.rest},
		funcTask{"spare tc generation", d.tc.KeepSpares},
		funcTask{"spare XDP generation", d.xdp.KeepSpares},
		funcTask{"service manager", d.herald().run}, // the last: READY=1 is for all of them
	)
}

// begin brings the machine to its revision. Without one, and without a FILE that makes one, the daemon ends, but for a node that must be
// got at: see maintain.
func (d *Daemon) begin(ctx context.Context) error {
	err := d.engine.Start(ctx)
	switch {
	case err == nil:
		if err := d.adopted(ctx); err != nil {
			return err
		}
	case errors.Is(err, engine.ErrDegraded):
		d.diagnose(ctx)
		d.unadopted.Store(true)
	default:
		d.diagnose(ctx)
		if forgot := d.forget(); forgot != nil || !d.opts.Maintenance {
			return errors.Join(err, forgot)
		}
	}
	d.maintain(ctx, err)
	return nil
}

// forget ends a first start that failed: its steps are undone, and the state maps, which belong to no revision, go too.
// Where a revision was ever live they stay, and with them its counters and flows.
func (d *Daemon) forget() error {
	if number, _, _ := d.engine.Current(); number != 0 {
		return nil
	}
	return pin.At(d.opts.BPFDir).RemoveIfUnused()
}

// diagnose adds to a failed start what the machine lacks: a kernel that is too old shows in strange ways.
func (d *Daemon) diagnose(ctx context.Context) {
	for _, f := range Doctor(ctx, DoctorOptions{BPFDir: d.opts.BPFDir}) {
		if f.Status == host.StatusMissing {
			d.opts.Log.Error("this machine lacks "+f.Name, "detail", f.Detail, "cost", f.Cost, "fix", f.Fix)
		}
	}
}

// adopted settles what an earlier process left and no step of the start touched: tunnels that fit already do not know
// their peers' names, and routes and BFD sessions of a speaker that the revision does not have any more are nobody's. After a degraded start
// it waits until that has healed: what the machine should hold is not known before, and its routes may be all that carries
// traffic.
func (d *Daemon) adopted(ctx context.Context) error {
	d.rememberTunnels()
	switch live := d.liveDesired().BGP; {
	case live.ASN == 0:
		return d.bgp.Down(ctx)
	case len(live.BFD) == 0:
		return d.bfd.Down()
	}
	return nil
}

// rememberTunnels tells the tunnels' drivers what is live: after a start, or after the repair of one that was degraded.
func (d *Daemon) rememberTunnels() {
	want := d.liveDesired()
	d.wireguard.Remember(want.WireGuard)
	d.ipsec.Remember(want.IPsec)
}

// settle is how long a burst of link events is gathered before the configuration is compiled again.
const settle = 100 * time.Millisecond

// follow compiles again when links or addresses changed: `self` and the workloads that are there may differ. Where
// nothing does, the plan is empty.
func (d *Daemon) follow(ctx context.Context, events <-chan host.Event) error {
	hear := func(e host.Event) {
		if d.linkNotice(e); e.Resync {
			d.gone.unknown()
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-events:
			if !open {
				return nil
			}
			d.opts.Log.Debug("link event", "link", e.Link, "exists", e.Exists, "carrier", e.Carrier)
			hear(e)
		}
		quiet := time.NewTimer(settle)
	gather:
		for {
			select {
			case e, open := <-events:
				if !open {
					return nil
				}
				hear(e)
			case <-quiet.C:
				break gather
			}
		}
		if err := d.engine.Recompile(ctx, "links or addresses changed"); err != nil && ctx.Err() == nil {
			d.opts.Log.Error("compile again", "error", err)
		}
		d.forgetGone(ctx)
	}
}

// leave ends the process's part and nothing else: what forwards goes on, and peers see a graceful restart. After a
// down there is nothing left to leave.
func (d *Daemon) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := d.bgp.Stop(ctx)
	d.wireguard.Stop()
	d.ipsec.Stop()
	d.path.Stop()
	d.metrics.close()
	d.host.Close()
	return err
}

func (d *Daemon) source() (engine.Source, error) {
	s, err := config.LoadFile(d.opts.File)
	return engine.Source{Name: absolute(s.Name), Bytes: s.Bytes, ReadFile: s.ReadFile}, err
}

// absolute is the name that a file has for everybody: relative paths in it are meant from its directory.
func absolute(name string) string {
	if path, err := filepath.Abs(name); err == nil {
		return path
	}
	return name
}

// parse is config.Parse for the engine, at the cost of what differs from the last one; name is absolute.
func (d *Daemon) parse(name string, data []byte, read func(string) ([]byte, error)) (*config.Config, error) {
	cfg, err := d.parsed.Parse(config.Source{Name: name, Bytes: data, ReadFile: read})
	if err == nil {
		cfg.Resolve(filepath.Dir(name))
	}
	return cfg, err
}
