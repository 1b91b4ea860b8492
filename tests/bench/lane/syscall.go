package lane

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"structs"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolSet is the ioctl for one value: struct ethtool_value behind struct ifreq.
func ethtoolSet(fd int, name string, command, data uint32) error {
	value := struct {
		_             structs.HostLayout
		Command, Data uint32
	}{Command: command, Data: data}
	request := struct {
		_    structs.HostLayout
		Name [unix.IFNAMSIZ]byte
		Data unsafe.Pointer
		_    [16]byte
	}{Data: unsafe.Pointer(&value)}
	copy(request.Name[:unix.IFNAMSIZ-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("ethtool %s: %w", name, errno)
	}
	return nil
}

// testRun is the part of union bpf_attr that BPF_PROG_TEST_RUN uses. The library's own call keeps the duration to itself
// in live mode.
type testRun struct {
	_                            structs.HostLayout
	Program, Retval              uint32
	DataSizeIn, DataSizeOut      uint32
	DataIn, DataOut              uint64
	Repeat, Duration             uint32
	ContextSizeIn, ContextSizeOu uint32
	ContextIn, ContextOut        uint64
	Flags, CPU, Batch, _         uint32
}

// run is one call; an interrupted one is an error, because nobody knows how often the program ran.
func (a *testRun) run() error {
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_TEST_RUN, uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a))
	runtime.KeepAlive(a)
	if errno != 0 {
		return fmt.Errorf("BPF_PROG_TEST_RUN: %w", errno)
	}
	return nil
}

// LastCPU is the last CPU that this process may use: where benchmarks run.
func LastCPU() (int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, err
	}
	for cpu := len(set)*64 - 1; cpu >= 0; cpu-- {
		if set.IsSet(cpu) {
			return cpu, nil
		}
	}
	return 0, errors.New("no CPU may be used")
}

// Pin keeps the calling thread, which must be locked, and the processes that it starts on one CPU: the softirqs of what
// it sends run there, too, in its own time or in that of ksoftirqd.
func Pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set)
}

// SoftirqPID finds the kernel thread of softirqs on a CPU; 0 where it is not to be seen.
func SoftirqPID(cpu int) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	want := fmt.Sprintf("ksoftirqd/%d\n", cpu)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if name, err := os.ReadFile("/proc/" + e.Name() + "/comm"); err == nil && string(name) == want {
			return pid
		}
	}
	return 0
}

// cpuTime is what the calling thread, and a process beside it, have used of a CPU: unlike the clock, other work on the
// machine does not stretch it.
func cpuTime(beside int) (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		return 0, err
	}
	total := time.Duration(now.Nano())
	if beside == 0 {
		return total, nil
	}
	ran, err := Ran(beside)
	return total + ran, err
}

// Ran is the CPU time of a process' first thread. It is exact while that thread does not run.
func Ran(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		return 0, err
	}
	ran, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
	return time.Duration(ran), err
}
