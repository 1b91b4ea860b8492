package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"sluice/tests/bench/lane"
	"sluice/tests/bench/node"
	"sluice/tests/birdc"
)

// birdProcess is a BIRD in a namespace.
type birdProcess struct {
	pid    int
	socket string
	end    chan struct{} // closed: it shall end
	ended  chan error
}

// startBird starts one with the configuration of a file and waits until that is read. The thread that started it lives as long, for its
// end would be the process's (Pdeathsig).
func startBird(ctx context.Context, in *lane.Namespace, config string) (*birdProcess, error) {
	b := &birdProcess{socket: config + ".ctl", end: make(chan struct{}), ended: make(chan error, 1)}
	cmd := exec.Command("/usr/sbin/bird", "-f", "-c", config, "-s", b.socket, "-P", config+".pid")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		b.ended <- in.Do(func() error {
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			<-b.end
			err = cmd.Process.Kill()
			_ = cmd.Wait() // killed
			return err
		})
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("BIRD 2 (package bird2): %w", err)
	}
	b.pid = cmd.Process.Pid
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	err := node.Poll(ctx, 20*time.Millisecond, func() error {
		_, err := birdc.Ask(b.socket, "show status")
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("BIRD with %s: %w", filepath.Base(config), err), b.Close())
	}
	return b, nil
}

// ask returns the number that an answer has.
func (b *birdProcess) ask(command string, number *regexp.Regexp) (int, error) {
	said, err := birdc.Ask(b.socket, command)
	if err != nil {
		return 0, err
	}
	m := number.FindStringSubmatch(said)
	if m == nil {
		return 0, fmt.Errorf("BIRD answers %q to %q", said, command)
	}
	return strconv.Atoi(m[1])
}

// Close ends it without a word.
func (b *birdProcess) Close() error {
	close(b.end)
	return <-b.ended
}
