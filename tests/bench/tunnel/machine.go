package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/tests/bench/tunnel/trial"
	"sluice/tests/vm"
)

// modules are WireGuard's, ESP's, and of the ciphers those that a CPU with AES and AVX2 gets. The kernel loads none by itself.
var modules = []string{
	"veth", "wireguard", "sch_plug", "xfrm_user", "esp4", "esp6", "xfrm_interface",
	"gcm", "ghash_generic", "ctr", "aesni_intel", "seqiv",
	"chacha20poly1305", "chacha_x86_64", "poly1305_x86_64",
	"authenc", "echainiv", "crypto_null",
}

// machine boots with one CPU for what a packet costs, and again with several for how the work spreads over them. Where its
// clock counts instructions, one a nanosecond, it is all the same how busy the host is, and that it emulates.
func (b *bench) machine(ctx context.Context) error {
	dir, err := os.MkdirTemp(b.w.dir, "machine-")
	if err != nil {
		return err
	}
	options, err := json.Marshal(b.o.Machine)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "options.json")
	if err := os.WriteFile(file, options, 0o600); err != nil {
		return err
	}
	b.results.Guest, b.results.Inside, b.results.Spreads = b.o.Machine, nil, nil
	var devices []string
	if b.o.Count {
		devices = []string{"-icount", "shift=0,sleep=off"}
	}
	type boot struct {
		tests string
		cpus  int
	}
	boots := []boot{{"TestLanes", 1}, {"TestSpread", b.o.Machine.CPUs}}
	if b.o.Machine.CPUs == 1 {
		boots = []boot{{"TestLanes|TestSpread", 1}}
	}
	for _, boot := range boots {
		began := time.Now()
		r, err := vm.Boot(ctx, dir, vm.Guest{
			Package: "sluice/tests/bench/tunnel/guest", Modules: modules, CPUs: boot.cpus, Memory: 1024,
			Files:   map[string]string{"/options.json": file, "/bin/load": b.load.Program()},
			Devices: devices, Args: []string{"-test.run=^(" + boot.tests + ")$"}, Timeout: 12 * time.Minute,
		})
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", boot.tests, err, r.Output)
		}
		b.results.GuestKernel = r.Kernel
		b.log.Info("a machine ran", "what", boot.tests, "took", time.Since(began).Round(time.Second))
		if err := b.results.read(r.Output); err != nil {
			return fmt.Errorf("%s: %w", boot.tests, err)
		}
	}
	return nil
}

// read takes what the machine found from its console.
func (r *Results) read(console string) error {
	for line := range strings.Lines(console) {
		line = strings.TrimSpace(line)
		var err error
		switch {
		case strings.HasPrefix(line, trial.MeasurementMark):
			err = into(&r.Inside, line, trial.MeasurementMark)
		case strings.HasPrefix(line, trial.SpreadMark):
			err = into(&r.Spreads, line, trial.SpreadMark)
		case strings.HasPrefix(line, trial.CryptoMark):
			err = json.Unmarshal([]byte(strings.TrimPrefix(line, trial.CryptoMark)), &r.Crypto)
		}
		if err != nil {
			return fmt.Errorf("read %.200q: %w", line, err)
		}
	}
	return nil
}

func into[T any](list *[]T, line, mark string) error {
	var v T
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, mark)), &v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}
