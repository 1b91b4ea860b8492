package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/disk"
	"sluice/control/feed"
	"sluice/control/host"
	"sluice/crypto/wireguard"
)

// Report is what `sluice check` tells of a file.
type Report struct {
	File string `json:"file"`
	compile.Report
	Warnings []string `json:"warnings"`

	Errors []api.Problem `json:"errors"` // of a bad file, which has nothing of the above
}

// Finding is a rule without effect.
type Finding = compile.Finding

// Schema is the JSON Schema of the file.
func Schema() []byte { return config.Schema() }

// Load reads a file and its set files, checks them, and makes the candidate that plan and apply send. An error is of
// type config.Errors where the file is bad.
func Load(file string) (api.Candidate, error) {
	src, err := config.LoadFile(file)
	if err != nil {
		return api.Candidate{}, err
	}
	cfg, err := config.Parse(src)
	if err != nil {
		return api.Candidate{}, err
	}
	c := api.Candidate{Name: absolute(src.Name), Bytes: src.Bytes, Files: []api.File{}}
	for _, f := range cfg.Files {
		c.Files = append(c.Files, api.File(f))
	}
	return c, nil
}

// Outline is a file without its long lists of rules and peers, for who looks for settings in it.
func Outline(contents []byte) []byte { return config.Skeleton(contents) }

// Collect makes the candidate of a file as Load does, but of a long file it reads only what names set files: the daemon
// reads all of it anyway. Where the daemon says no, judge tells what is wrong with the file, in the words of Load.
func Collect(file string) (c api.Candidate, judge func() error, err error) {
	src, err := config.LoadFile(file)
	if err != nil {
		return api.Candidate{}, nil, err
	}
	files, certain := config.SetFiles(src)
	if !certain {
		c, err = Load(file)
		return c, func() error { return nil }, err
	}
	c = api.Candidate{Name: absolute(src.Name), Bytes: src.Bytes, Files: []api.File{}}
	for _, f := range files {
		c.Files = append(c.Files, api.File(f))
	}
	return c, func() error {
		_, err := config.Parse(src)
		return err
	}, nil
}

// Check parses and compiles a file as if every interface that it names were there and every key made: it may be meant
// for another machine. stateDir is where a daemon of this machine keeps what watched set files held. An error is of type
// config.Errors where the file is bad.
func Check(ctx context.Context, file, stateDir string) (Report, error) {
	none := compile.Report{Objects: []compile.ObjectCost{}, Hooks: []compile.HookCost{}, Findings: []compile.Finding{}}
	r := Report{File: file, Report: none, Warnings: []string{}, Errors: []api.Problem{}}
	src, err := config.LoadFile(file)
	if err != nil {
		return r, err
	}
	cfg, err := config.Parse(src)
	if err != nil {
		return r, err
	}
	cfg.Resolve(filepath.Dir(absolute(file)))
	feeds := feed.New(feed.Options{Dir: keptSets(disk.State(stateDir)), Log: slog.New(slog.DiscardHandler)})
	if err := prepareSets(feeds, cfg); err != nil {
		return r, err
	}
	r.Warnings = append(r.Warnings, keptWarnings(feeds, cfg)...)
	watched := feeds.Snapshot(cfg.Watched()).Contents
	facts := pretend(cfg)
	// Where it is meant for this machine, what stands behind its workloads is known.
	if facts.Host.Behind, err = host.WorkloadsBehind(ctx, compile.LooksBehind(cfg, nil)); err != nil {
		return r, err
	}
	here, err := host.LinksHere(ctx)
	if err != nil {
		return r, err
	}
	pretendPeers(cfg, facts.Host.Links, here)
	r.Warnings = append(r.Warnings, smallParents(cfg, here)...)
	lacking := host.DevicesLacking(compile.LooksAtDevices(cfg))
	for _, kind := range slices.Sorted(maps.Keys(lacking)) {
		r.Warnings = append(r.Warnings, "on this machine apply would refuse every "+kind+" to be made: "+lacking[kind])
	}
	if names, err := withoutModule(ctx, cfg); err != nil {
		return r, err
	} else if len(names) > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("on this machine apply would refuse backend: kernel of %s: %v; load it, or write backend: auto",
			strings.Join(names, ", "), wireguard.ErrNoModule))
	}
	for _, fault := range keyFaults(cfg) {
		r.Warnings = append(r.Warnings, "on this machine apply would refuse "+fault)
	}
	facts.Certificates = certificateWarnings(cfg, time.Now())
	if facts.Host.OnLink, err = host.OnLink(ctx, compile.LooksAtHops(cfg)); err != nil {
		return r, err
	}
	if facts.Host.Queues, err = host.QueuesOf(ctx, compile.LooksAtQueues(cfg, nil)); err != nil {
		return r, err
	}
	receivers, err := host.ReceiversOf(ctx, compile.LooksAtTags(cfg))
	if err != nil {
		return r, err
	}
	for _, name := range slices.Sorted(maps.Keys(receivers)) {
		for _, here := range receivers[name] {
			if here.HidesTags != "" { // no error: an interface of that name is here, and perhaps not the one that is meant
				r.Warnings = append(r.Warnings, "on this machine apply would refuse the rules with vlan that meet "+name+": "+here.Link+": "+here.HidesTags)
			}
		}
	}
	more, err := hardwareWarnings(ctx, cfg, here)
	if err != nil {
		return r, err
	}
	r.Warnings = append(r.Warnings, more...)
	desired, err := compile.Compile(cfg, compile.Runtime{Watched: watched}, facts)
	if err != nil {
		return r, err
	}
	r.Warnings = append(append(r.Warnings, desired.Warnings...), desired.Notes...)
	r.Warnings = append(r.Warnings, compile.AcceptedInClear(cfg, desired)...)
	r.Report = compile.NewReport(cfg, desired)
	return r, nil
}

// hardwareWarnings are what this machine's hardware cannot do; a file for another one is none the worse.
func hardwareWarnings(ctx context.Context, cfg *config.Config, here map[string]host.LinkFact) (out []string, err error) {
	var facts host.Facts
	for _, l := range here {
		facts.Links = append(facts.Links, l)
	}
	if err := hardwareFacts(ctx, cfg, &facts); err != nil {
		return nil, err
	}
	for _, fault := range compile.NICFaults(cfg, facts) {
		out = append(out, "on this machine apply would refuse "+fault.Path+": "+fault.Msg)
	}
	return out, nil
}

// pretend makes facts out of the file alone.
func pretend(cfg *config.Config) compile.Facts {
	f := compile.Facts{Image: true} // a file with node.ssh is meant for one
	add := func(name string) {
		mtu := 1500
		for _, i := range cfg.Interfaces {
			if i.Parent == name {
				mtu = max(mtu, i.MTU)
			}
		}
		f.Host.Links = append(f.Host.Links, host.LinkFact{Name: name, Index: len(f.Host.Links) + 1, MTU: mtu, Up: true, Carrier: true})
	}
	for _, i := range cfg.Interfaces {
		for _, name := range append([]string{i.Name, i.Parent}, i.Members...) {
			if name != "" && !slices.ContainsFunc(f.Host.Links, func(l host.LinkFact) bool { return l.Name == name }) {
				add(name)
			}
		}
	}
	for _, w := range cfg.Workloads {
		add(w.Interface)
	}
	for _, t := range cfg.Tunnels {
		add(t.Name)
	}
	// Where the file leaves the addresses to others, these stand in for theirs: `self` is not empty on the machine.
	if len(f.Host.Links) > 0 && !slices.ContainsFunc(cfg.Interfaces, func(i config.Interface) bool { return len(i.Addresses) > 0 }) {
		f.Host.Links[0].Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::1/128")}
	}
	return f
}

// pretendPeers takes over which workloads' interfaces of this machine have both ends in its namespace: these are no use to
// any machine.
func pretendPeers(cfg *config.Config, links []host.LinkFact, here map[string]host.LinkFact) {
	for i := range links {
		is := func(w config.Workload) bool { return w.Interface == links[i].Name }
		if peer := here[links[i].Name]; peer.PeerHere && slices.ContainsFunc(cfg.Workloads, is) {
			links[i].PeerHere, links[i].Kind = true, peer.Kind
		}
	}
}

// smallParents warns of VLAN children that are too large for this machine, where the file leaves their parent's MTU as it is.
func smallParents(cfg *config.Config, here map[string]host.LinkFact) []string {
	var out []string
	for _, i := range cfg.Interfaces {
		written := slices.ContainsFunc(cfg.Interfaces, func(p config.Interface) bool { return p.Name == i.Parent && p.MTU > 0 })
		if parent, ok := here[i.Parent]; ok && !written && i.MTU > parent.MTU {
			out = append(out, fmt.Sprintf("on this machine apply would refuse interface %s: its MTU %d is larger than that of %s, %d; give %s a larger mtu",
				i.Name, i.MTU, i.Parent, parent.MTU, i.Parent))
		}
	}
	return out
}
