package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"sluice/tests/bench/node"
	"sluice/tests/vm"
)

// boot boots a machine whose init starts the daemon. Its clock counts instructions, one a nanosecond, and jumps while it
// is idle: what else the host does, and that it emulates, does not show.
func (b *bench) boot(ctx context.Context) error {
	dir, err := os.MkdirTemp(string(b.w.files), "boot-")
	if err != nil {
		return err
	}
	files := map[string]string{"/bin/sluice": b.w.binary}
	for _, n := range b.o.Boot {
		for name, content := range map[string][]byte{"sluice.yaml": bootBox(), "listed.netset": netset(newList(Even, n))} {
			host := filepath.Join(dir, fmt.Sprintf("%d-%s", n, name))
			if err := os.WriteFile(host, content, 0o600); err != nil {
				return err
			}
			// In the order of their sizes.
			files[fmt.Sprintf("/boxes/%08d/%s", n, name)] = host
		}
	}
	r, err := vm.Boot(ctx, dir, vm.Guest{
		Package: "sluice/tests/bench/footprint/guest", Modules: []string{"veth"}, Files: files, Memory: 2048,
		Devices: []string{"-icount", "shift=0,sleep=off"}, Args: []string{"-test.run=TestBoot"}, Timeout: 12 * time.Minute,
	})
	if err != nil {
		return fmt.Errorf("boot a machine: %w\n%s", err, r.Output)
	}
	b.results.Boot, err = bootOf(r, b.o.Boot)
	for _, x := range b.results.Boot {
		b.log.Info("booted", "prefixes", x.Prefixes, "stages", x.Stages)
	}
	return err
}

// bootBox is the file of the machine that boots: its addresses are not there before.
func bootBox() []byte {
	return []byte("interfaces:\n  - {name: uplink, role: uplink, addresses: [198.18.0.1/30], xdp: {mode: native}}\n" + listPolicy)
}

var bootMark = regexp.MustCompile(`(?m)^BOOT (\S+) (\d+)$`)

// bootOf reads what the guest printed. Its times count from when the kernel began.
func bootOf(r vm.Result, sizes []int) ([]Boot, error) {
	at := map[string]time.Duration{}
	for _, m := range bootMark.FindAllStringSubmatch(r.Output, -1) {
		us, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			return nil, err
		}
		at[m[1]] = time.Duration(us) * time.Microsecond
	}
	var out []Boot
	for _, n := range slices.Sorted(slices.Values(sizes)) {
		name := fmt.Sprintf("%08d", n)
		start, filtered := at["start-"+name], at["filtered-"+name]
		if at["payload"] == 0 || at["init"] == 0 || start == 0 || filtered <= start {
			return nil, fmt.Errorf("the guest did not say when it filtered %d prefixes:\n%s", n, r.Output)
		}
		log := regexp.MustCompile(`(?m)^BOOTLOG `+name+` .*$`).FindAllString(r.Output, -1)
		phases := map[string]time.Duration{}
		for _, line := range log {
			of, err := node.PhasesOf([]byte(line + "\n"))
			if err != nil {
				return nil, err
			}
			for part, t := range of {
				phases[part] += t
			}
		}
		out = append(out, Boot{Prefixes: n, Kernel: r.Kernel, Phases: phases, Stages: []Stage{
			{"kernel, until its init starts", at["init"]},
			{"init: mounts, modules", at["payload"] - at["init"]},
			{"sluice, until its first drop", filtered - start},
		}})
	}
	return out, nil
}
