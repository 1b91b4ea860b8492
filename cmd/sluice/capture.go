package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sluice/control/api"
	"sluice/plural"
)

func (c *cli) captureCmd() *cobra.Command {
	t := &taking{cli: c, request: api.CaptureRequest{By: fmt.Sprintf("%s (process %d)", author(), os.Getpid())}}
	cmd := &cobra.Command{
		Use:   "capture -w FILE.pcapng",
		Short: "Write packets that were dropped or passed to a file, with the reason and the rule of each",
		Long: `Packets go to FILE as the hook that judged them left them, until Ctrl-C or one of --count, --for and --size; the comment
of each says what became of it, why, by which rule and at which hook. A packet that passes several hooks comes several
times; --hook asks for one. A packet must fit every option that is given, and one of those of an option given twice.

There is one capture at a time. What is beyond 10000 packets a second, or not read in time, is not in the file but
counted. tcpdump reads no file that has interfaces with and without Ethernet headers in it (tunnels): ask for one
with --in; Wireshark reads it.`,
		Example: `  sluice capture -w drops.pcapng --dropped --in eth0 --for 30s
  sluice capture -w bogons.pcapng --rule ingress/no-bogons --count 100
  sluice capture -w - --host 192.0.2.7 | tcpdump -r -`,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&t.file, "write", "w", "", "the `FILE`; - is standard output")
	flags.BoolVar(&t.force, "force", false, "replace FILE where it is there")
	flags.BoolVar(&t.dropped, "dropped", false, "dropped packets only")
	flags.BoolVar(&t.passed, "passed", false, "packets that were not dropped only")
	flags.StringArrayVar(&t.request.Reasons, "reason", nil, "packets of a `REASON`, as show drops names it; may be given again")
	flags.StringArrayVar(&t.request.Rules, "rule", nil, "packets that a `RULE` decided, as POLICY/NAME; may be given again")
	flags.StringVar(&t.request.Host, "host", "", "packets from or to an address or a `PREFIX`")
	flags.StringVar(&t.request.Interface, "in", "", "packets of an `INTERFACE`")
	flags.StringVar(&t.request.Hook, "hook", "", "packets of a `HOOK`: xdp, tcx-ingress or tcx-egress")
	flags.StringVar(&t.request.Protocol, "protocol", "", "packets of a `PROTOCOL`, by name or number")
	flags.Var(number[uint16]{&t.request.Port, math.MaxUint16, "443"}, "port", "packets from or to a `PORT`")
	flags.Var(number[int]{&t.request.Sample, math.MaxInt32, "100"}, "sample", "one packet in `N`")
	flags.Var(number[int]{&t.request.Snaplen, math.MaxInt32, "128"}, "snaplen", "`BYTES` of a packet at most; without it, all up to 9216")
	flags.Var(number[uint64]{&t.count, math.MaxInt64, "1000"}, "count", "end after `N` packets")
	flags.Var(&t.lasts, "for", "end after a time, such as 30s or 10m")
	flags.Var(&t.size, "size", "end once FILE has so many `BYTES`: 500kB, 10MB, 2GB")
	return cmd
}

// taking is one capture into one file.
type taking struct {
	*cli
	request         api.CaptureRequest
	file            string
	force           bool
	dropped, passed bool
	count           uint64 // 0: no end
	lasts           lifetime
	size            byteSize // 0: no end

	out  *pcapng // nil until the capture began
	stop context.CancelFunc
	sum  *api.CaptureCount // nil until the capture ended in good order
}

func (t *taking) run(cmd *cobra.Command) error {
	if err := t.check(cmd); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	t.stop = stop
	err := t.client().Capture(ctx, t.request, t.take)
	if errors.Is(err, context.Canceled) {
		err = nil // it ended before it began, or the daemon did not say good-bye
	}
	if t.out == nil {
		return err
	}
	missed := uint64(0)
	if t.sum != nil {
		missed = t.sum.Suppressed + t.sum.Lost
	}
	closed := t.out.close(missed)
	t.report()
	if errors.Is(err, api.ErrUnreachable) {
		err = fmt.Errorf("%w; what came before is in %s", err, t.name())
	}
	return errors.Join(err, closed)
}

func (t *taking) check(cmd *cobra.Command) error {
	switch {
	case t.file == "":
		return usageError{fmt.Errorf("give -w FILE; see `%s --help`", cmd.CommandPath())}
	case t.dropped && t.passed:
		return usageError{errors.New("--dropped and --passed: say one of them, or none for both")}
	case t.dropped:
		t.request.Fate = api.FateDropped
	case t.passed:
		t.request.Fate = api.FatePassed
	}
	if t.file == "-" {
		if f, ok := t.cli.out.(*os.File); ok && isTerminal(f) {
			return usageError{errors.New("-w - writes packets, which are not for a terminal: send it into a pipe")}
		}
		return nil
	}
	// Known before the capture begins; create is what makes sure.
	switch info, err := os.Lstat(t.file); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !t.force:
		return fmt.Errorf("%s is there: give another name, or --force to replace it", t.file)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file, and is not replaced", t.file)
	}
	return nil
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (t *taking) name() string {
	if t.file == "-" {
		return "standard output"
	}
	return t.file
}

// create makes the file new: what was there is not written into, nor is what a link points to.
func (t *taking) create() (io.WriteCloser, error) {
	if t.file == "-" {
		return keepOpen{t.cli.out}, nil
	}
	if t.force {
		if err := os.Remove(t.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return os.OpenFile(t.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

func (t *taking) take(e api.CaptureEvent) error {
	switch e.Type {
	case api.CaptureBegin:
		to, err := t.create()
		if err != nil {
			return err
		}
		t.out = &pcapng{to: to, snaplen: t.request.Snaplen, first: t.request.Interface, begun: t.now()}
		fmt.Fprintf(t.err, "capturing to %s; Ctrl-C ends it\n", t.name())
		if t.lasts > 0 {
			time.AfterFunc(time.Duration(t.lasts), t.stop)
		}
	case api.CaptureFrame:
		if t.full() {
			return nil // on its way when the end was asked for
		}
		if err := t.out.write(*e.Frame); err != nil {
			return fmt.Errorf("write to %s: %w", t.name(), err)
		}
		if t.full() {
			t.stop()
		}
	case api.CaptureEnded:
		t.sum = e.Count
	}
	return nil
}

func (t *taking) full() bool {
	return t.count > 0 && t.out.packets >= t.count || t.size > 0 && t.out.bytes >= int64(t.size)
}

// report says what is in the file, and what is not. It goes where the packets do not.
func (t *taking) report() {
	if t.json() {
		e := struct {
			File    string `json:"file"`
			Packets uint64 `json:"packets"`
			Bytes   int64  `json:"bytes"`
			*api.CaptureCount
		}{t.file, t.out.packets, t.out.bytes, t.sum}
		if t.file != "-" {
			_ = t.printJSON(e)
		}
		return
	}
	missing := "; how many are missing is not known"
	if t.sum != nil {
		missing = ""
		if n := t.sum.Suppressed; n > 0 {
			missing += fmt.Sprintf("; %d more came too fast (--sample or a narrower filter helps)", n)
		}
		if n := t.sum.Lost; n > 0 {
			missing += fmt.Sprintf("; %d more were lost, because they were read too slowly", n)
		}
	}
	fmt.Fprintf(t.err, "%s in %s%s\n", plural.Of(t.out.packets, "packet", "packets"), t.name(), missing)
}
