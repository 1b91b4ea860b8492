package report

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Drawer is what a benchmark found: it writes its Markdown and plots into a folder.
type Drawer interface{ Draw(dir string) error }

// Command is a benchmark with the command line that all of them share.
type Command struct {
	Name    string // of the report: NAME.json has what was measured, NAME.md what people read
	Takes   string // for the help: "full (about 7 minutes) or quick (about 4)"
	Results Drawer // empty; what was saved is read into it to be drawn again
	// Flags adds those that only this benchmark has. Nil: none.
	Flags func(*flag.FlagSet)
	// Measure fills Results. Keep says whether they are a report of their own, which replaces the one that is there.
	Measure func(context.Context, Run) (keep bool, err error)
	// Done comes after the report was written. Nil: nothing.
	Done func() error
}

// The sizes of a run.
const (
	sizeFull  = "full"
	sizeQuick = "quick"
)

// Run is what one run was asked for.
type Run struct {
	Log      *slog.Logger
	Size     string // full or quick
	Revision string // of the source
	File     string // of the results of the run before, which may not exist
}

// Sized is the one of a benchmark's two sizes that was asked for.
func Sized[O any](r Run, full, quick O) O {
	if r.Size == sizeQuick {
		return quick
	}
	return full
}

// Main runs c with the program's arguments and ends the program. A hung tool or kernel call must not leave a machine busy
// for ever: longest ends it.
func (c Command) Main(longest time.Duration) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	if err := c.Run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// Run measures and writes the report, or with -redraw only draws it again.
func (c Command) Run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	run := Run{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	flags.StringVar(&run.Size, "size", sizeFull, c.Takes)
	flags.StringVar(&run.Revision, "revision", "unknown", "of the source, for the report")
	out := flags.String("out", "tests/bench/results", "folder of the report")
	redraw := flags.Bool("redraw", false, "only draw the report of "+c.Name+".json again")
	if c.Flags != nil {
		c.Flags(flags)
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	run.File = filepath.Join(*out, c.Name+".json")
	if *redraw {
		if err := Load(run.File, c.Results); err != nil {
			return err
		}
		return c.Results.Draw(*out)
	}
	if run.Size != sizeFull && run.Size != sizeQuick {
		return fmt.Errorf("size %q: %s or %s", run.Size, sizeFull, sizeQuick)
	}
	start := time.Now()
	keep, err := c.Measure(ctx, run)
	if err != nil || !keep {
		return err
	}
	if err := errors.Join(Save(run.File, c.Results), c.Results.Draw(*out)); err != nil {
		return err
	}
	fmt.Printf("took %s; the report is %s\n", time.Since(start).Round(time.Second), filepath.Join(*out, c.Name+".md"))
	if c.Done == nil {
		return nil
	}
	return c.Done()
}
