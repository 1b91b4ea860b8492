package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a child that runs in a namespace, in a session and process group of its own, so that Ctrl-C at the
// terminal reaches the lab alone. A record on disk lets `lab down` find it when the lab is gone.
type Process struct {
	Name string
	Log  string // the file that has its output

	cmd    *exec.Cmd
	record string
	done   chan struct{} // closed when it has ended
}

// identity names a process beyond doubt: pids come back, start times with them do not. Started is in clock ticks since
// the machine booted.
type identity struct {
	PID     int    `json:"pid"`
	Started uint64 `json:"started"`
}

// Command starts a program in the namespace and returns at once; its output is appended to NAME.log in the lab's
// directory. It ends with the site.
func (n *Namespace) Command(name, program string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(n.site.Dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = cleanEnvironment(os.Environ())
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !n.site.options.Detached {
		// Sent when the starting thread ends, and Do keeps that one alive: so, when the lab ends in whatever way.
		p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := n.Do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", name, n.Name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended shows in its log
		close(p.done)
	}()
	if err := p.writeRecord(n.site.Dir); err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	n.site.track(p)
	return p, nil
}

func (p *Process) writeRecord(dir string) error {
	started, err := startTime(p.cmd.Process.Pid)
	if err != nil {
		return nil // gone already: nothing to find again
	}
	p.record = filepath.Join(dir, fmt.Sprintf("%s.%d.process", p.Name, p.cmd.Process.Pid))
	return writeJSON(p.record, identity{PID: p.cmd.Process.Pid, Started: started})
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends one to the process alone; its group hears nothing of it.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// ExitCode is the one that the process ended with, -1 where a signal ended it. It waits for the end.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Kill is kill -9 for the process and its group. It returns when the process is gone; to be gone already is no error.
func (p *Process) Kill() error {
	select {
	case <-p.done:
	default:
		// A pid that was reaped this instant is not given out again before the kernel has been through all the others.
		if err := syscall.Kill(-p.PID(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill %s, process %d: %w", p.Name, p.PID(), err)
		}
		<-p.done
	}
	if p.record == "" {
		return nil
	}
	if err := os.Remove(p.record); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// alive says whether the very process still runs.
func (id identity) alive() bool {
	started, err := startTime(id.PID)
	return err == nil && id.PID > 0 && started == id.Started
}

// endTimeout is far more than a killed process needs to go.
const endTimeout = 10 * time.Second

// kill ends a process of a dead lab, and its group, which it leads, and waits until it is gone: a daemon that dies could
// make one more pin.
func (id identity) kill() error {
	if !id.alive() {
		return nil
	}
	if err := syscall.Kill(-id.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process %d: %w", id.PID, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	return poll(ctx, func() error {
		if id.alive() {
			return fmt.Errorf("process %d does not end", id.PID)
		}
		return nil
	})
}

// self is this process.
func self() (identity, error) {
	started, err := startTime(os.Getpid())
	return identity{PID: os.Getpid(), Started: started}, err
}

// startTime reads field 22 of /proc/PID/stat, see proc_pid_stat(5). A zombie has ended.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses, and may hold blanks and parentheses itself.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has too few fields", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// cleanEnvironment keeps the settings of the caller's own gateway out of the lab's.
func cleanEnvironment(env []string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, "SLUICE_") {
			out = append(out, e)
		}
	}
	return out
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
