package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/xdp/packet"
)

// shot is a `sluice capture` under way.
type shot struct {
	*lab.Process
	file string
}

// capture starts the command itself and returns when it captures.
func (s *site) capture(args ...string) *shot {
	s.t.Helper()
	name := fmt.Sprintf("capture-%d", time.Now().UnixNano())
	c := &shot{file: filepath.Join(s.Dir, name+".pcapng")}
	p, err := s.Gateway.Command(name, binary(), append([]string{"capture", "-w", c.file, "--socket", s.Gateway.Socket}, args...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	c.Process = p
	eventually(s.t, func() error {
		if said := s.logOf(p); !bytes.Contains(said, []byte("capturing to")) {
			return fmt.Errorf("the capture has not begun: %q", said)
		}
		return nil
	})
	return c
}

// ended waits for the end and returns what the command said.
func (c *shot) ended(s *site, code int) string {
	s.t.Helper()
	select {
	case <-c.Done():
	case <-time.After(patience):
		s.t.Fatal("the capture does not end")
	}
	said := string(s.logOf(c.Process))
	if got := c.ExitCode(); got != code {
		s.t.Fatalf("the capture ended with %d, want %d: %s", got, code, said)
	}
	return said
}

func (c *shot) interrupt(s *site) string {
	s.t.Helper()
	if err := c.Signal(syscall.SIGINT); err != nil {
		s.t.Fatal(err)
	}
	return c.ended(s, 0)
}

// caught is one packet of a file.
type caught struct {
	comment string
	data    []byte
}

func readFile(t *testing.T, path string) (all []caught) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, _, options, err := r.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, caught{strings.Join(options.Comments, "|"), data})
	}
}

// send puts frames on the ToR's end of the gateway's uplink.
func (s *site) send(frames ...[]byte) {
	s.t.Helper()
	link, err := s.ToR.Netlink().LinkByName("gateway")
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.ToR.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

func frame(t *testing.T, line string, args ...any) []byte {
	t.Helper()
	spec, err := packet.Parse(fmt.Sprintf(line, args...))
	if err != nil {
		t.Fatal(err)
	}
	out, err := spec.Frame()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// attack are frames that the rule no-attackers drops, each of its own.
func attack(t *testing.T, n int) (frames [][]byte) {
	for i := range n {
		line := "udp 192.0.2.66:%d > 203.0.113.10:%d len=%d"
		if i%2 == 1 {
			line = "udp [2001:db8:a::66]:%d > [2001:db8:100::10]:%d len=%d"
		}
		frames = append(frames, frame(t, line, 1000+i, 2000+i, 100+i*20))
	}
	return frames
}

func TestCapturedPacketsAreThoseThatWereSent(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	dropped := s.capture("--rule", "ingress/no-attackers", "--hook", "xdp")
	frames := attack(t, 60)
	s.send(frames...)
	s.silent(s.Client, lab.Web4[0], 22) // dropped for another reason

	// While it runs nobody else captures, and is told why.
	refusal := s.sluice("capture", "-w", filepath.Join(s.Dir, "second"))
	if refusal.code != 1 || !regexp.MustCompile(`a capture of \S+ \(process `+fmt.Sprint(dropped.PID())+`\) is under way since .* one at a time`).MatchString(refusal.err) {
		t.Errorf("a second capture: %+v", refusal)
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "second")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it left a file: %v", err)
	}

	said := dropped.interrupt(s)
	if !strings.HasSuffix(said, "60 packets in "+dropped.file+"\n") {
		t.Errorf("the capture said %s", said)
	}
	got := readFile(t, dropped.file)
	comment := regexp.MustCompile(`^drop rule-drop ingress/no-attackers \(.*:\d+\) xdp$`)
	for i, f := range frames {
		if i >= len(got) || !bytes.Equal(got[i].data, f) || !comment.MatchString(got[i].comment) {
			t.Fatalf("packet %d of %d is %+v, want %x", i, len(got), got[min(i, len(got)-1)], f)
		}
	}
	if len(got) != len(frames) {
		t.Errorf("%d packets, want %d", len(got), len(frames))
	}
	if read := s.must(s.Gateway.Namespace, "tcpdump -nr "+dropped.file); strings.Count(read, "> 203.0.113.10.")+strings.Count(read, "> 2001:db8:100::10.") != len(frames) {
		t.Errorf("tcpdump reads\n%s", read)
	}

	// What passes, hook by hook.
	passed := s.capture("--passed", "--host", lab.Client4.String(), "--port", "80")
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	passed.interrupt(s)
	seen := map[string]int{}
	for _, p := range readFile(t, passed.file) {
		seen[regexp.MustCompile(` \(.*\)`).ReplaceAllString(p.comment, "")]++
	}
	for _, want := range []string{"pass rule-accept ingress/web xdp", "pass delivered workload/web-1/ingress/web tcx-ingress", "pass judged tcx-egress"} {
		if seen[want] == 0 {
			t.Errorf("no packet is %q among %v", want, seen)
		}
	}
	for comment := range seen {
		if !strings.HasPrefix(comment, "pass ") && !strings.HasPrefix(comment, "stack ") {
			t.Errorf("captured as passed: %s", comment)
		}
	}
	for args, want := range map[string]string{
		"--reason rule-drpo":       `there is no reason "rule-drpo"; near it are rule-drop`,
		"--rule ingress/noattacks": `there is no rule "ingress/noattacks"; near it are ingress/no-attackers`,
		"--in eth7":                "no program of Sluice's is on \"eth7\"",
	} {
		if r := s.sluice(append([]string{"capture", "-w", filepath.Join(s.Dir, "third")}, strings.Fields(args)...)...); r.code != 1 || !strings.Contains(r.err, want) {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

func TestACaptureOutlivesTheDaemonAsAFile(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	c := s.capture("--dropped", "--host", "192.0.2.66")
	frames := attack(t, 20)
	s.send(frames...)
	eventually(t, func() error {
		data, err := os.ReadFile(c.file)
		if err == nil && !bytes.Contains(data, frames[18]) {
			err = fmt.Errorf("%d bytes lack the last frame", len(data))
		}
		return err
	})
	s.kill()
	said := c.ended(s, 3)
	if !strings.Contains(said, "could not reach the daemon any more: it has ended; ") || !strings.Contains(said, "what came before is in "+c.file) {
		t.Errorf("the capture said %s", said)
	}
	if got := readFile(t, c.file); len(got) != 10 || !bytes.Equal(got[9].data, frames[18]) {
		t.Errorf("the file holds %d packets", len(got))
	}

	// The next daemon captures, and what the dead one asked for is not in it.
	s.send(attack(t, 4)...)
	s.start()
	next := s.capture("--host", "192.0.2.66", "--count", "2")
	s.send(frames[:4]...)
	next.ended(s, 0)
	if got := readFile(t, next.file); len(got) != 2 || !bytes.Equal(got[0].data, frames[0]) {
		t.Errorf("the next file holds %+v", got)
	}
	// SIGTERM is told as well.
	last := s.capture()
	s.terminate()
	last.ended(s, 3)
	readFile(t, last.file)
}

// TestASlowCaptureHoldsUpNobody: what it does not read is lost to it, and counted.
func TestASlowCaptureHoldsUpNobody(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	client := s.Gateway.API()
	defer client.Close()
	ctx, stop := context.WithCancel(t.Context())
	begun, read, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var frames uint64
	var count *api.CaptureCount
	go func() {
		ended <- client.Capture(ctx, api.CaptureRequest{Reasons: []string{"rule-drop", "default-drop"}, Hook: "xdp", Snaplen: 9216}, func(e api.CaptureEvent) error {
			switch e.Type {
			case api.CaptureBegin:
				close(begun)
				<-read // and so nothing is read
			case api.CaptureFrame:
				frames++
			case api.CaptureEnded:
				count = e.Count
			}
			return nil
		})
	}()
	<-begun
	large := slices.Repeat([][]byte{frame(t, "udp 192.0.2.66:1 > 203.0.113.10:2 len=1400")}, 500)
	for range 20 { // 14 MB in two seconds: more than the ring holds, and not more than the rate
		s.send(large...)
		time.Sleep(100 * time.Millisecond)
	}
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	close(read)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if count == nil || count.Lost == 0 || frames+count.Lost+count.Suppressed != count.Wanted {
		t.Errorf("%d frames, %+v", frames, count)
	}
	t.Logf("%d frames, %+v", frames, count)
	if c := s.capture("--count", "1"); c.ended(s, 0) == "" {
		t.Error("the next capture says nothing")
	}
}
