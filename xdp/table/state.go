package table

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// Names of the state maps that XDP and tc share, as in maps.h, bans.h, flowspec.h, limit.h, fragments.h, events.h, capture.h and syncookie.h.
const (
	RuleHits = "rule_hits"

	Flows         = "flows"
	FreshOut      = "fresh_out"
	FreshIn       = "fresh_in"
	Translations  = "translations"
	Young         = "young_translations"
	FlowPressure  = "flow_pressure"
	SNATFragments = "snat_fragments"
	SNATExhausted = "snat_exhausted"
	FlowShares    = "flow_shares"
	FlowEvents    = "flow_events"

	BanState = "ban_state"
	Bans     = "bans"
	Bans4    = "bans4"
	Bans6    = "bans6"
	BanHits  = "ban_hits"

	FlowSpecLive      = "flowspec_live"
	FlowSpecEntries   = "flowspec_entries"
	FlowSpecProtocols = "flowspec_protocols"
	FlowSpecDst4      = "flowspec_dst4"
	FlowSpecSrc4      = "flowspec_src4"
	FlowSpecDst6      = "flowspec_dst6"
	FlowSpecSrc6      = "flowspec_src6"
	FlowSpecBuckets   = "flowspec_buckets"
	FlowSpecHits      = "flowspec_hits"

	LimitBuckets  = "limit_buckets"
	LimitSources  = "limit_sources"
	LimitSeed     = "limit_seed"
	LimitPressure = "limit_pressure"

	Fragments = "fragments"

	Watches       = ".data.watches" // a variable
	WatchBudgets  = "watch_budgets"
	DropEvents    = "drop_events"
	LogEvents     = "log_events"
	CaptureEvents = "capture_events"
	CaptureFilter = "capture_filter"

	SYNListeners = "syn_listeners"
)

// sharedPins are the names and layout versions of their pins. Raise a version with the struct that stands in the map.
var sharedPins = map[string]struct {
	pin     string
	version int
}{
	SYNListeners: {"syn-listeners", 2},

	RuleHits: {"rule-hits", 3},

	Flows:         {"flows", 3}, // the version of these four is one, see flowLineage
	FreshOut:      {"fresh-out", 3},
	FreshIn:       {"fresh-in", 3},
	Translations:  {"translations", 3},
	Young:         {"young-translations", 1},
	FlowPressure:  {"flow-pressure", 1},
	FlowShares:    {"flow-shares", 1},
	FlowEvents:    {"flow-events", 2},
	SNATFragments: {"snat-fragments", 1},
	SNATExhausted: {"snat-exhausted", 1},

	BanState: {"ban-state", 1},
	Bans:     {"bans", 1},
	Bans4:    {"bans4", 1},
	Bans6:    {"bans6", 1},
	BanHits:  {"ban-hits", 1},

	FlowSpecLive:      {"flowspec-live", 1},
	FlowSpecEntries:   {"flowspec-entries", 1},
	FlowSpecProtocols: {"flowspec-protocols", 1},
	FlowSpecDst4:      {"flowspec-dst4", 1},
	FlowSpecSrc4:      {"flowspec-src4", 1},
	FlowSpecDst6:      {"flowspec-dst6", 1},
	FlowSpecSrc6:      {"flowspec-src6", 1},
	FlowSpecBuckets:   {"flowspec-buckets", 1},
	FlowSpecHits:      {"flowspec-hits", 1},

	LimitBuckets:  {"limit-buckets", 2}, // 1 had one size for ever, and who knows only that refuses another
	LimitSources:  {"limit-sources", 2},
	LimitSeed:     {"limit-seed", 1},
	LimitPressure: {"limit-pressure", 1},

	Fragments: {"fragments", 1},

	Watches:       {"watches", 2},
	WatchBudgets:  {"watch-budgets", 2},
	DropEvents:    {"drop-events", 2},
	LogEvents:     {"log-events", 1},
	CaptureEvents: {"capture-events", 1},
	CaptureFilter: {"capture-filter", 1},
}

// Sizes are those of the state maps that a configuration chooses.
type Sizes struct {
	Flows uint32 // proven ones; fresh ones and translations follow from it
	Rules uint32 // ids that rules and defaults have, counted from 0: the highest + 1
	// Limited are the ids that rules with a limit have, in the same way; 0: there is none.
	Limited uint32
}

// flows are the sizes of the maps that hold flows, by name.
func (s Sizes) flows() map[string]uint32 {
	proven := max(s.Flows, 1)
	fresh := max(proven/abi.FreshPart, abi.FreshLeast)
	young := abi.YoungPart * fresh
	return map[string]uint32{Flows: proven, Translations: proven + fresh + young, Young: young, FreshOut: fresh, FreshIn: fresh}
}

// prepareYoung makes the pinned queue of the size that spec says. What stood in another one is forgotten: translations that
// lose their flow wait for the sweep then.
func prepareYoung(dir *pin.Dir, spec *ebpf.MapSpec) error {
	have, err := ReadShared(dir, Young)
	if err != nil || have == nil {
		return err
	}
	defer have.Close()
	if have.MaxEntries() == spec.MaxEntries {
		return nil
	}
	at := sharedPins[Young]
	fresh, err := dir.ReplaceStateMap(spec, at.pin, at.version, func(*ebpf.Map) error { return nil })
	if err != nil {
		return err
	}
	return fresh.Close()
}

// OpenShared opens the state maps that XDP and tc share, and makes what is missing. Rule counters and buckets of limits that are too
// few are replaced by a map that takes over the entries, and so is a flow table of another size or layout, but empty at first: see TakeOver. The
// keys are the names of maps.h.
func OpenShared(dir *pin.Dir, spec *ebpf.CollectionSpec, sizes Sizes) (map[string]*ebpf.Map, error) {
	for name, size := range sizes.flows() {
		if one, ok := spec.Maps[name]; ok {
			one.MaxEntries = size
		}
	}
	if hits, ok := spec.Maps[RuleHits]; ok {
		if err := prepareHits(dir, hits, sizes.Rules); err != nil {
			return nil, err
		}
	}
	if err := prepareLimits(dir, spec, sizes.Limited); err != nil {
		return nil, err
	}
	if young, ok := spec.Maps[Young]; ok {
		if err := prepareYoung(dir, young); err != nil {
			return nil, err
		}
	}
	shared, err := OpenState(dir, spec, slices.Collect(maps.Keys(sharedPins))...)
	if err != nil {
		return nil, err
	}
	if err := removeFormer(dir); err != nil {
		return nil, errors.Join(err, CloseAll(shared))
	}
	err = numberHits(spec, shared[RuleHits])
	if err == nil {
		err = seedLimits(shared[LimitSeed])
	}
	if err != nil {
		return nil, errors.Join(err, CloseAll(shared))
	}
	return shared, nil
}

// formerPins are names that no map has any more.
var formerPins = []string{"drop-control", "drop-budget"}

// removeFormer unpins maps of former layouts, whose successors are there. Those of flows go once they were taken over. Maps of a
// later layout, which a newer version left, stay for when that comes back.
func removeFormer(dir *pin.Dir) error {
	var errs []error
	for _, name := range formerPins {
		errs = append(errs, dir.RemoveStateMap(name, 1))
	}
	for _, now := range sharedPins {
		for version := 1; version < now.version && !slices.Contains(flowPins, now.pin); version++ {
			errs = append(errs, dir.RemoveStateMap(now.pin, version))
		}
	}
	return errors.Join(errs...)
}

// OpenState opens some of them, of the sizes that spec says, and makes what is missing.
func OpenState(dir *pin.Dir, spec *ebpf.CollectionSpec, names ...string) (map[string]*ebpf.Map, error) {
	shared := map[string]*ebpf.Map{}
	for _, name := range names {
		at := sharedPins[name]
		one, ok := spec.Maps[name]
		if !ok {
			return nil, errors.Join(missing(name), CloseAll(shared))
		}
		if name == Watches {
			one.Flags |= unix.BPF_F_MMAPABLE // as the loader of programs does with variables, but later
		}
		m, err := dir.StateMap(one, at.pin, at.version)
		if err != nil {
			return nil, errors.Join(err, CloseAll(shared))
		}
		shared[name] = m
	}
	return shared, nil
}

// SharedPath is where one of them is pinned.
func SharedPath(dir *pin.Dir, name string) string {
	at := sharedPins[name]
	return dir.StateMapPath(at.pin, at.version)
}

// ReadShared opens one of them as it is: nil where there is none.
func ReadShared(dir *pin.Dir, name string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(SharedPath(dir, name), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state map %s: %w", name, err)
	}
	return m, nil
}

// Reopen opens the state maps that XDP and tc share as they are: for what works beside a live generation. It fails where one
// is missing.
func Reopen(dir *pin.Dir, spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	shared := map[string]*ebpf.Map{}
	for name := range sharedPins {
		m, err := ReadShared(dir, name)
		if err == nil && m == nil {
			err = fmt.Errorf("state map %s is missing", name)
		}
		if err != nil {
			return nil, errors.Join(err, CloseAll(shared))
		}
		shared[name] = m
		if one, ok := spec.Maps[name]; ok {
			one.MaxEntries, one.Flags = m.MaxEntries(), m.Flags()
		}
	}
	return shared, nil
}

// notEverywhere are those that not every program uses: of one size for ever, so that their pins are never replaced, or,
// translations and their queue, replaced together with flows.
var notEverywhere = []string{SYNListeners, Translations, Young, SNATFragments, SNATExhausted, FlowPressure, FlowShares, FlowEvents,
	FlowSpecLive, FlowSpecEntries, FlowSpecProtocols, FlowSpecDst4, FlowSpecSrc4, FlowSpecDst6, FlowSpecSrc6, FlowSpecBuckets, FlowSpecHits}

// SharedMaps are the ids of the shared maps that every program uses, as they are pinned now; nil where one is missing.
type SharedMaps []ebpf.MapID

// PinnedShared asks the kernel for them: once for all programs that are looked at.
func PinnedShared(dir *pin.Dir) (SharedMaps, error) {
	var ids SharedMaps
	for name := range sharedPins {
		if slices.Contains(notEverywhere, name) {
			continue
		}
		m, err := ReadShared(dir, name)
		if err != nil || m == nil {
			return nil, err
		}
		info, err := m.Info()
		if err = errors.Join(err, m.Close()); err != nil {
			return nil, fmt.Errorf("state map %s: %w", name, err)
		}
		id, _ := info.ID()
		ids = append(ids, id)
	}
	return ids, nil
}

// UsedBy says whether a live program works on them. It does not once a pin was replaced by one of another size, for whatever
// became of the apply that did so: then XDP would read other flows than tc writes.
func (s SharedMaps) UsedBy(p *ebpf.Program) (bool, error) {
	used, err := pin.ProgramMaps(p)
	if err != nil {
		return false, err
	}
	return s != nil && !slices.ContainsFunc(s, func(id ebpf.MapID) bool { return !slices.Contains(used, id) }), nil
}

// CloseAll closes descriptors; pins and programs keep the maps.
func CloseAll(maps map[string]*ebpf.Map) error {
	var errs []error
	for _, m := range maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
