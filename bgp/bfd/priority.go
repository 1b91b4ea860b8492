package bfd

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Priority is how the process of the sessions is scheduled. A machine that is busy, with its own restart for one, must not keep packets
// waiting that say that it lives: at 100 ms x 3 a peer gives up after 300 ms.
type Priority string

// Priorities, the best first: each where the one before is refused, by a container without CAP_SYS_NICE or a control group without
// real-time bandwidth.
const (
	RealTime Priority = "real-time"
	Nice     Priority = "nice"
	Normal   Priority = "normal"
)

// leastRealTime is the lowest real-time priority, which is above all that is none. The kernel keeps 5 % of each processor for the rest
// (sched_rt_runtime_us), whatever this process does.
const (
	leastRealTime = 1
	leastNice     = -20
)

// prioritize takes the best priority that it gets. Threads that are made later have that of those that make them.
func prioritize() Priority {
	robin := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: leastRealTime}
	if everyThread(func(tid int) error { return unix.SchedSetAttr(tid, robin, 0) }) == nil {
		return RealTime
	}
	if everyThread(func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, leastNice) }) == nil {
		return Nice
	}
	return Normal
}

// everyThread calls f for each thread of this process, until it finds no new one: a thread that f has not reached may have made it.
func everyThread(f func(tid int) error) error {
	for done := map[int]bool{}; ; {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		before := len(done)
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil || done[tid] {
				continue
			}
			if err := f(tid); err != nil && err != unix.ESRCH {
				return err
			}
			done[tid] = true
		}
		if len(done) == before {
			return nil
		}
	}
}
