package daemon

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"

	"sluice/control/api"
	"sluice/crypto/ipsec"
)

// xfrmCounters are the kernel's, sorted by name.
func xfrmCounters() ([]api.XFRMCounter, error) {
	all, err := ipsec.Statistics()
	if errors.Is(err, fs.ErrNotExist) { // a kernel without CONFIG_XFRM_STATISTICS
		return []api.XFRMCounter{}, nil
	}
	out := []api.XFRMCounter{}
	for name, n := range all {
		out = append(out, api.XFRMCounter{Name: name, Packets: n, Text: ipsec.Meaning(name)})
	}
	slices.SortFunc(out, func(a, b api.XFRMCounter) int { return cmp.Compare(a.Name, b.Name) })
	return out, err
}
