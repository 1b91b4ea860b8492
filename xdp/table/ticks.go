package table

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// ticks is the kernel's counter of timer ticks at a moment.
type ticks struct {
	jiffies uint64
	length  time.Duration // of one: 1/CONFIG_HZ
	at      time.Time
}

// readTicks asks the kernel for what bpf_jiffies64() gives to programs. No file tells it: a program that runs once and
// writes it into its context does (since kernel 5.14). The length of a tick is the resolution of the coarse clocks,
// which the kernel defines as just that.
func readTicks() (ticks, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "read_jiffies", Type: ebpf.Syscall, Flags: unix.BPF_F_SLEEPABLE, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.FnJiffies64.Call(),
			asm.StoreMem(asm.R6, 0, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		return ticks{}, fmt.Errorf("load the program that reads jiffies: %w", err)
	}
	defer program.Close()
	var t ticks
	if _, err := program.Run(&ebpf.RunOptions{Context: uint64(0), ContextOut: &t.jiffies}); err != nil {
		return ticks{}, fmt.Errorf("read jiffies: %w", err)
	}
	t.at = time.Now()
	var resolution unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &resolution); err != nil {
		return ticks{}, fmt.Errorf("length of a tick: %w", err)
	}
	t.length = time.Duration(resolution.Nano())
	return t, nil
}

// wall is the wall clock's time of an earlier tick, as the clock stands now. Ticks stop while the machine sleeps, as
// gateways do not.
func (t ticks) wall(jiffies uint64) time.Time {
	if jiffies >= t.jiffies { // a CPU may be a tick ahead
		return t.at.Round(0)
	}
	return t.at.Add(-time.Duration(t.jiffies-jiffies) * t.length).Round(0)
}
