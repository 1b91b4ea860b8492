package progruntc_test

import (
	"testing"

	"github.com/cilium/ebpf"

	"sluice/xdp/pin"
)

// translations opens the pinned map.
func (s *site) translations(t *testing.T) *ebpf.Map {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(pin.At(s.dir).StateMapPath("translations", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}
