package wireguard

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sluice/crypto/wireguard/child"
	"sluice/process"
)

// process is the pid of who runs a tunnel.
func (s *space) process(t testing.TB, name string) int {
	t.Helper()
	pid := s.running(t, name)
	if pid == 0 {
		t.Fatalf("nobody runs %s", name)
	}
	return pid
}

// running is process, and 0 where there is none.
func (s *space) running(t testing.TB, name string) int {
	t.Helper()
	number, err := inode(s.FD())
	if err != nil {
		t.Fatal(err)
	}
	h, _ := child.At("", nil, number).FindHolder(name)
	return h.PID
}

// killProcess is kill -9, and waits until the kernel has closed what the process held.
func (s *space) killProcess(t *testing.T, name string) {
	t.Helper()
	pid := s.process(t, name)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the killed process lets go of the TUN", func() bool { return s.running(t, name) != pid })
}

// stopProcess is kill -STOP, and waits until no thread runs any more: one that does still answers.
func stopProcess(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // one that nobody replaced would stand there for ever
		_ = unix.Close(fd)
	})
	if err := unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0); err != nil {
		t.Fatal(err)
	}
	until(t, "all threads of the process stand still", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		return err == nil && len(threads) > 0 && !slices.ContainsFunc(threads, func(path string) bool {
			text, err := os.ReadFile(path)
			_, rest, ok := strings.Cut(string(text), ") ")
			return err == nil && (!ok || rest[0] != 'T')
		})
	})
}

func (e *end) handshake() time.Time {
	e.t.Helper()
	return e.status().Peers[0].LastHandshake
}

// gone says whether a process has ended. Who reaps one that its daemon has left behind is not ours to say.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

func TestTrafficGoesOnWhileTheDaemonIsAwayAndTheNextAdopts(t *testing.T) {
	upgraded := func(t *testing.T, p *pair) *end {
		t.Helper()
		binary := filepath.Join(t.TempDir(), "next")
		data, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(binary, data, 0o700); err != nil {
			t.Fatal(err)
		}
		return startEndOf(t, p.a, binary, p.a.stateDir)
	}
	again := func(t *testing.T, p *pair) *end { return startEnd(t, p.a) }
	cases := map[string]struct {
		away func(*end)
		back func(*testing.T, *pair) *end
	}{
		"stopped":                         {(*end).stop, again},
		"killed":                          {(*end).kill, again},
		"killed, and its binary replaced": {(*end).kill, upgraded},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.up(t)
			pid, handshake := p.a.process(t, "fra1"), p.endA.handshake()
			s := startStream(t, p.a.dial(t, "udp", "10.20.0.1"))
			s.goesOn(50)
			c.away(p.endA)
			s.goesOn(100)
			p.endA = c.back(t, p)
			if ops := p.endA.converge(p.wantA); len(ops) != 1 || ops[0] != "update peer b of fra1: preshared key "+p.wantA.Tunnels[0].Peers[0].PresharedKeyFile {
				t.Errorf("the next daemon does %v; it knows everything but the names of key files", ops)
			}
			s.goesOn(50)
			s.lostNothing()
			if now := p.a.process(t, "fra1"); now != pid {
				t.Errorf("process %d runs the tunnel, %d did", now, pid)
			}
			if now := p.endA.handshake(); !now.Equal(handshake) {
				t.Errorf("there was another handshake: %s, %s before", now, handshake)
			}
		})
	}
}

func TestAKilledProcessIsNoticedAtOnceAndReplacedAndLeaksNothing(t *testing.T) {
	for name, side := range map[string]func(*pair) (*space, **end, State){
		"of the side that knows the endpoint": func(p *pair) (*space, **end, State) { return p.a, &p.endA, p.wantA },
		"of the side that has learned it":     func(p *pair) (*space, **end, State) { return p.b, &p.endB, p.wantB },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.up(t)
			space, end, want := side(p)
			(*end).observe() // as the daemon's polls do: the endpoint in use is known
			pid := space.process(t, "fra1")
			s := startStream(t, p.a.dial(t, "udp", "10.20.0.1"))
			s.goesOn(50)
			space.killProcess(t, "fra1")
			killed := time.Now()
			p.send(t)
			if e := (*end).must(request{Do: "event"}).Event; e.Tunnel != "fra1" {
				t.Errorf("event %+v", e)
			}
			noticed := time.Since(killed)
			(*end).converge(want)
			s.goesOn(50)
			lost, of := s.lost(2 * time.Second)
			t.Logf("noticed after %s; %d of %d datagrams were lost", noticed, lost, of)
			if time.Duration(lost)*pace >= tryAgain { // nobody polls here: it was noticed by the event alone
				t.Errorf("%d datagrams were lost: the first handshake was in vain", lost)
			}
			if now := space.process(t, "fra1"); now == pid {
				t.Error("no other process was started")
			}
			if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
				t.Errorf("the killed process is left: %s", state)
			}
			p.fence(t)
			if marked, _ := p.wire.seen(); marked != 0 {
				t.Errorf("%d frames in clear", marked)
			}
		})
	}
}

func TestAProcessThatDiesYoungIsStartedAgainLaterAndLater(t *testing.T) {
	want := []time.Duration{0, 0, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond}
	for deaths, pause := range want {
		if got := pauseAfter(deaths); got != pause {
			t.Errorf("after %d deaths: %s, want %s", deaths, got, pause)
		}
	}
	if got := pauseAfter(1000); got != 30*time.Second {
		t.Errorf("at last: %s", got)
	}
}

func TestAProcessThatDoesNotAnswerIsReplaced(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.up(t)
	pid := p.a.process(t, "fra1")
	stopProcess(t, pid)
	wantError(t, p.endA.ask(request{Do: "status"}), "process of tunnel fra1 did not answer in 2s")
	p.endA.must(request{Do: "event"}) // whoever asked has waited on, and killed it
	if !gone(pid) {
		t.Errorf("process %d lives", pid)
	}
	p.endA.converge(p.wantA)
	p.a.answers(t, "10.20.0.1", marker)
}

func TestTheProcessEndsWithItsInterface(t *testing.T) {
	p := newPair(t)
	p.up(t)
	pid := p.a.process(t, "fra1")
	if err := p.a.LinkDel(p.a.link(t, "fra1")); err != nil {
		t.Fatal(err)
	}
	p.endA.must(request{Do: "event"})
	p.sendsNoMarker(t, "the link is gone")
	if !gone(pid) {
		t.Errorf("process %d lives", pid)
	}
	p.endA.converge(p.wantA)
	p.a.answers(t, "10.20.0.1", marker)
	// Without a daemon that would tell it to.
	p.endA.kill()
	pid = p.a.process(t, "fra1")
	if err := p.a.LinkDel(p.a.link(t, "fra1")); err != nil {
		t.Fatal(err)
	}
	until(t, "the process ends", func() bool { return gone(pid) })
}

func TestTheProcessLivesInTheNamespaceAndASessionOfItsOwn(t *testing.T) {
	p := newPair(t)
	p.up(t)
	want, err := inode(p.a.FD())
	if err != nil {
		t.Fatal(err)
	}
	pid := p.a.process(t, "fra1")
	var ns unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &ns); err != nil || ns.Ino != want {
		t.Errorf("namespace %d, want %d (%v)", ns.Ino, want, err)
	}
	if session, err := unix.Getsid(pid); err != nil || session != pid {
		t.Errorf("session %d of process %d (%v)", session, pid, err)
	}
}

func TestNoSecretIsToBeSeenOfTheProcess(t *testing.T) {
	p := newPair(t)
	p.up(t)
	p.wantA.Tunnels[0].ListenPort = 51999 // something to log, among others
	p.endA.converge(p.wantA)
	pid := p.a.process(t, "fra1")
	var secrets []string
	for _, file := range []string{p.wantA.Tunnels[0].PrivateKeyFile, p.wantA.Tunnels[0].Peers[0].PresharedKeyFile} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, strings.TrimSpace(string(text)), hex.EncodeToString(raw), string(raw))
	}
	files := []string{fmt.Sprintf("/proc/%d/cmdline", pid), fmt.Sprintf("/proc/%d/environ", pid)}
	err := filepath.WalkDir(p.a.stateDir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
		}
		if info, statErr := os.Lstat(path); statErr != nil || path != p.a.stateDir && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %s", path, info.Mode())
		}
		return err
	})
	if err != nil || len(files) != 3 {
		t.Errorf("files %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds a secret", file)
			}
		}
		if strings.HasSuffix(file, "environ") && len(text) != 0 {
			t.Errorf("the environment is not empty: %q", text)
		}
	}
}

func TestAStateDirectoryMayHaveAnyLength(t *testing.T) {
	p := newPair(t)
	p.a.stateDir = filepath.Join(p.a.stateDir, strings.Repeat("long/", 40), rand.Text())
	p.up(t)
	p.endA.kill()
	p.endA = startEnd(t, p.a)
	if s := p.endA.observe(); s.Tunnels[0].Down {
		t.Error("the tunnel is not adopted")
	}
	p.endA.must(request{Do: "down"})
	if left, err := os.ReadDir(p.a.stateDir); err != nil || len(left) != 0 {
		t.Errorf("files after down: %v, %v", left, err)
	}
}

func TestTwoInstancesAreIndependent(t *testing.T) {
	p := newPair(t) // two state directories and namespaces, and a tunnel of the same name in both
	p.up(t)
	pid := p.b.process(t, "fra1")
	p.endA.must(request{Do: "down"})
	if now := p.b.process(t, "fra1"); now != pid {
		t.Errorf("process %d runs the other instance's tunnel, %d did", now, pid)
	}
	// A state directory that is not its own keeps an instance from all tunnels of that name.
	stranger := startEndOf(t, p.a, os.Args[0], p.b.stateDir)
	wantError(t, stranger.ask(request{Do: "converge", Want: p.wantA}), "tunnel fra1", fmt.Sprintf("process %d", pid),
		"another network namespace", "state directory of its own")
	if now := p.b.running(t, "fra1"); now != pid {
		t.Errorf("process %d runs the other instance's tunnel, %d did", now, pid)
	}
}

func TestASocketThatIsNotOursIsNotSpokenTo(t *testing.T) {
	p := newPair(t)
	run := filepath.Join(p.a.stateDir, "run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(run, "tunnel-fra1.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	heard := make(chan string, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 1000)
			n, _ := c.Read(buf)
			heard <- string(buf[:n])
			c.Write([]byte("errno=-95\n\n"))
			c.Close()
		}
	}()
	p.endA = startEnd(t, p.a)
	wantError(t, p.endA.ask(request{Do: "converge", Want: p.wantA}), "fra1", fmt.Sprintf("process %d", os.Getpid()), path, process.ErrForeign.Error(), "end it")
	if got := <-heard; got != "hello=1\n\n" {
		t.Errorf("it was told %q", got)
	}
	if _, err := p.a.LinkByName("fra1"); err == nil {
		t.Error("the link was left behind")
	}
	l.Close() // and the file is a stale socket
	p.endA.converge(p.wantA)
	if diff := cmp.Diff(p.wantA, p.endA.observe(), comparePrefix); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
}

func TestATUNThatAnotherProcessHoldsIsAnErrorThatNamesIt(t *testing.T) {
	p := newPair(t)
	p.endA = startEnd(t, p.a)
	p.endA.converge(p.wantA)
	p.endA.kill()
	p.a.killProcess(t, "fra1")
	d := &Driver{ns: p.a.FD()}
	var file *os.File
	until(t, "the killed process's hold is gone", func() (ok bool) { // its files are closed after they are seen no more
		var err error
		file, err = d.openTUN("fra1")
		return err == nil
	})
	holder := exec.Command("sleep", "60")
	holder.ExtraFiles = []*os.File{file}
	p.a.Do(t, holder.Start)
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	file.Close()
	p.endA = startEnd(t, p.a)
	wantError(t, p.endA.ask(request{Do: "converge", Want: p.wantA}), "interface fra1 is run by another process",
		fmt.Sprintf("process %d (sleep 60)", holder.Process.Pid), "end it, or rename the tunnel")
	p.a.link(t, "fra1")
}

func TestATunnelOfAnotherStateDirectoryIsAdopted(t *testing.T) {
	p := newPair(t)
	p.up(t)
	pid, handshake := p.a.process(t, "fra1"), p.endA.handshake()
	s := startStream(t, p.a.dial(t, "udp", "10.20.0.1"))
	s.goesOn(20)
	p.endA.kill()
	p.endA = startEndOf(t, p.a, os.Args[0], t.TempDir())
	p.endA.converge(p.wantA)
	s.goesOn(20)
	s.lostNothing()
	if now := p.a.process(t, "fra1"); now != pid {
		t.Errorf("process %d runs the tunnel, %d did", now, pid)
	}
	if now := p.endA.handshake(); !now.Equal(handshake) {
		t.Error("there was another handshake")
	}
	p.endA.must(request{Do: "down"})
	if left, err := os.ReadDir(filepath.Join(p.a.stateDir, "run")); err != nil || len(left) != 0 {
		t.Errorf("files after down: %v, %v", left, err)
	}
}

func TestAProcessThatHangsIsReplacedByTheNextDaemon(t *testing.T) {
	p := newPair(t)
	p.up(t)
	p.endA.kill()
	pid := p.a.process(t, "fra1")
	stopProcess(t, pid)
	p.endA = startEnd(t, p.a)
	p.endA.converge(p.wantA)
	if now := p.a.process(t, "fra1"); now == pid {
		t.Error("the process that hangs is still there")
	}
	p.a.answers(t, "10.20.0.1", []byte("hello"))
}

func TestAProcessWhoseSocketWasRemovedIsReplacedByTheNextDaemon(t *testing.T) {
	p := newPair(t)
	p.up(t)
	p.endA.kill()
	pid := p.a.process(t, "fra1")
	if err := os.RemoveAll(filepath.Join(p.a.stateDir, "run")); err != nil {
		t.Fatal(err)
	}
	p.endA = startEnd(t, p.a)
	p.endA.converge(p.wantA)
	if now := p.a.process(t, "fra1"); now == pid {
		t.Error("the process that nobody can speak to is still there")
	}
	p.a.answers(t, "10.20.0.1", []byte("hello"))
}
