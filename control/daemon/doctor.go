package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"sluice/control/api"
	"sluice/control/config"
	"sluice/control/engine"
	"sluice/control/host"
	"sluice/xdp/pin"
)

// DoctorOptions say what to look at beside the machine.
type DoctorOptions struct {
	BPFDir string
	File   string // the configuration where no daemon answers; one that is not there has no tunnels
	// Status and Config ask the daemon, where one answers; nil: it is not asked. File before Config where FileFirst: the operator
	// means that file.
	Status    func(context.Context) (api.Status, error)
	Config    func(context.Context) (api.StoredConfig, error)
	FileFirst bool
}

// Doctor is host.Doctor, which knows the programs that are pinned below BPFDir, with what the tunnels of the configuration need, and
// what the daemon says of itself, where one answers.
func Doctor(ctx context.Context, o DoctorOptions) []host.Finding {
	cfg, live, fault := o.config(ctx)
	of := host.DoctorOptions{BPFDir: o.BPFDir, Ours: attachedFrom(o.BPFDir), Tunnels: tunnelNeeds(cfg),
		RootLink: func(program uint32) uint32 { return uint32(pin.RootLink(ebpf.ProgramID(program))) }}
	of.PlacesIRQs = cfg != nil && slices.ContainsFunc(cfg.Interfaces, func(i config.Interface) bool { return i.NIC != nil && i.NIC.IRQs != nil })
	if live {
		of.Forwarders = forwarders(cfg)
	}
	out := host.Doctor(ctx, of)
	if ctx.Err() == nil {
		out = append(out, tunnelFindings(ctx, cfg)...)
	}
	if cfg != nil && !live && len(cfg.Tunnels) > 0 { // the daemon has read those of what runs
		out = append(out, keyFinding(cfg))
	}
	if cfg != nil {
		if f, told := certificateFinding(cfg, time.Now()); told {
			out = append(out, f)
		}
	}
	if fault != nil {
		out = append(out, host.Finding{Name: "file", Status: host.StatusWarn, Detail: fmt.Sprintf("%s has errors, the first: %v", o.File, fault),
			Cost: "what its tunnels need is not looked at", Fix: "sluice check -c " + o.File + " names all of them"})
	}
	if o.Status == nil || ctx.Err() != nil {
		return out
	}
	s, err := o.Status(ctx)
	if err == nil && s.Conntrack != nil {
		out = append(out, conntrackFinding(s))
	}
	if err == nil {
		out = append(out, stateFinding(s))
	}
	return out
}

// stateFinding is about the files of the state directory.
func stateFinding(s api.Status) host.Finding {
	f := host.Finding{Name: "state-directory", Status: host.StatusOK, Detail: "its files could be read and written"}
	for _, c := range s.Engine.Conditions {
		if c.Type != engine.ConditionStateDir || c.Status != engine.False {
			continue
		}
		f.Status, f.Detail = host.StatusWarn, c.Message
		if c.Reason == "NotWritten" {
			f.Cost, f.Fix = "the gateway goes on, and the next start would know less", "make room on the disk, or mount it writable; what is missing is written within seconds"
		} else {
			f.Cost, f.Fix = "what the file held is lost", "see whether the disk fails (dmesg); what is named is to be done again"
		}
	}
	return f
}

// forwarders are those who cannot do without: uplinks and tunnels answer them.
func forwarders(cfg *config.Config) (out []host.Forwarder) {
	six := func(a netip.Addr) bool { return a.Is6() && !a.IsLinkLocalUnicast() }
	for _, i := range cfg.Interfaces {
		if i.Role == config.RoleDownstream {
			has6 := slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return six(p.Addr()) })
			out = append(out, host.Forwarder{Link: i.Name, IPv6: has6})
		}
	}
	for _, w := range cfg.Workloads {
		out = append(out, host.Forwarder{Link: w.Interface, IPv6: slices.ContainsFunc(w.Addresses, six)})
	}
	return out
}

// config is what is to be run, or runs (live); nil: nothing is.
func (o DoctorOptions) config(ctx context.Context) (cfg *config.Config, live bool, err error) {
	if o.Config != nil && !o.FileFirst {
		if c, err := o.Config(ctx); err == nil {
			if cfg, err := parseStored(c); err == nil {
				return cfg, true, nil
			}
		}
	}
	src, err := config.LoadFile(o.File)
	if errors.Is(err, fs.ErrNotExist) && !o.FileFirst {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if cfg, err = config.Parse(src); err == nil {
		cfg.Resolve(filepath.Dir(absolute(o.File)))
	}
	return cfg, false, err
}

// parseStored reads a revision, whose set files come with it.
func parseStored(c api.StoredConfig) (*config.Config, error) {
	return config.Parse(config.Source{Name: "the live revision", Bytes: c.Bytes, ReadFile: func(path string) ([]byte, error) {
		for _, f := range c.Files {
			if f.Path == path {
				return f.Contents, nil
			}
		}
		return nil, fs.ErrNotExist
	}})
}

// attachedFrom are the ids of the programs whose links are pinned in a directory. What cannot be looked at is not there.
func attachedFrom(bpfDir string) map[uint32]bool {
	ours, dir := map[uint32]bool{}, pin.At(bpfDir)
	hooks, _ := dir.Hooks("")
	for _, h := range hooks {
		l, err := dir.Link(h)
		if err != nil {
			continue
		}
		if info, err := l.Info(); err == nil {
			ours[uint32(info.Program)] = true
		}
		l.Close()
	}
	return ours
}

func conntrackFinding(s api.Status) host.Finding {
	t := s.Conntrack
	f := host.Finding{Name: "conntrack", Status: host.StatusOK, Detail: fmt.Sprintf("%d of %d flows", t.Flows.Entries, t.Flows.Max)}
	if t.Full+t.Crowded+t.Unmade > 0 {
		f.Detail += fmt.Sprintf("; so far %d found no room, %d were beyond their owner's share, %d were not tracked", t.Full, t.Crowded, t.Unmade)
	}
	pressed := func(c engine.Condition) bool { return c.Type == engine.ConditionConntrack && c.Status == engine.True }
	if slices.ContainsFunc(s.Engine.Conditions, pressed) {
		f.Status, f.Cost = host.StatusWarn, "flows that find no room are not kept as proven ones are: under a flood they are the first to go"
		f.Fix = "raise conntrack.max_entries; `sluice show flows --count` says whose they are"
	}
	return f
}
