package table

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"

	"sluice/xdp/pin"
)

// Names of the state maps that XDP and tc share, as in maps.h.
const (
	RuleHits = "rule_hits"
	FlowsOut = "flows_out"
	FlowsIn  = "flows_in"
)

// sharedPins are the names and layout versions of their pins. Raise a version with the struct that stands in the map.
var sharedPins = map[string]struct {
	pin     string
	version int
}{
	RuleHits: {"rule-hits", 2},
	FlowsOut: {"flows-out", 1},
	FlowsIn:  {"flows-in", 1},
}

// OpenShared opens the state maps that XDP and tc share, and makes what is missing. flowSlots is the size of each flow
// table; one of another size is replaced by one that takes over its entries. The keys are the names of maps.h.
func OpenShared(dir *pin.Dir, spec *ebpf.CollectionSpec, flowSlots uint32) (map[string]*ebpf.Map, error) {
	shared := map[string]*ebpf.Map{}
	for name, at := range sharedPins {
		one, ok := spec.Maps[name]
		if !ok {
			return nil, errors.Join(missing(name), CloseAll(shared))
		}
		if name != RuleHits {
			one.MaxEntries = max(flowSlots, 1)
		}
		m, err := dir.StateMap(one, at.pin, at.version)
		if err != nil {
			return nil, errors.Join(err, CloseAll(shared))
		}
		shared[name] = m
	}
	return shared, nil
}

// ReadShared opens one of them as it is: nil where there is none.
func ReadShared(dir *pin.Dir, name string) (*ebpf.Map, error) {
	at := sharedPins[name]
	m, err := ebpf.LoadPinnedMap(dir.StateMapPath(at.pin, at.version), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state map %s: %w", at.pin, err)
	}
	return m, nil
}

// CloseAll closes descriptors; pins and programs keep the maps.
func CloseAll(maps map[string]*ebpf.Map) error {
	var errs []error
	for _, m := range maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// LoadTwin loads the programs of spec once more with explain set. They share every map of the live ones but .rodata,
// the one in which they differ.
func LoadTwin(spec *ebpf.CollectionSpec, live map[string]*ebpf.Map) (*ebpf.Collection, error) {
	spec = spec.Copy()
	if err := spec.Variables["explain"].Set(uint8(1)); err != nil {
		return nil, fmt.Errorf("explain twin: %w", err)
	}
	replace := map[string]*ebpf.Map{}
	for name, m := range live {
		if name != ".rodata" {
			replace[name] = m
		}
	}
	twin, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return nil, fmt.Errorf("explain twin: %w", LoadError(err))
	}
	return twin, nil
}

// Freeze makes tables read-only to us as well: from here on nothing changes them.
func Freeze(maps map[string]*ebpf.Map, names ...string) error {
	for _, name := range names {
		m, ok := maps[name]
		if !ok {
			return missing(name)
		}
		if err := m.Freeze(); err != nil {
			return fmt.Errorf("freeze map %s: %w", name, err)
		}
	}
	return nil
}

// LoadError says what a refusal by the kernel most likely means. The verifier's log is in the error's %+v form.
func LoadError(err error) error {
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		return fmt.Errorf("the kernel's verifier refuses the program (is the kernel older than 6.6? `sluice doctor` tells): %w", err)
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("this kernel lacks a feature that the programs need (`sluice doctor` tells which): %w", err)
	}
	return err
}
