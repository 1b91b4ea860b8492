package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"sluice/control/api"
)

// Options are all needed.
type Options struct {
	Client  *api.Client
	Version string // of this program, or of the image that it is in
	In      io.Reader
	Out     io.Writer
	Login   func() bool          // whether somebody may log in
	Uptime  func() time.Duration // of the machine
	Now     func() time.Time
	Every   time.Duration // between two looks
}

// redrawAfter is how many looks a screen stands that did not change: the kernel may have written over it.
const redrawAfter = 10

// silentAfter is how many looks in a row nobody answers before that is an alarm: a daemon that starts or compiles has not answered yet.
const silentAfter = 3

// answerWithin is the time of each question. The socket is there before the daemon serves it, so a question may hang.
const answerWithin = 5 * time.Second

// clear homes the cursor and wipes the screen (ECMA-48).
const clear = "\x1b[H\x1b[2J"

// Run draws until ctx ends, or until somebody wants to log in and may.
func Run(ctx context.Context, o Options) (login bool, err error) {
	entered := make(chan struct{})
	go func() {
		defer close(entered)
		lines := bufio.NewReader(o.In)
		for {
			if _, err := lines.ReadSlice('\n'); err != nil && err != bufio.ErrBufferFull {
				return // the line was hung up, or there is no keyboard
			}
			select {
			case entered <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	drawn, stands := "", 0
	var seen View
	for {
		seen = o.look(ctx).after(seen)
		if screen := seen.Screen(); screen != drawn || stands == redrawAfter {
			if _, err := io.WriteString(o.Out, clear+strings.ReplaceAll(strings.TrimSuffix(screen, "\n"), "\n", "\r\n")); err != nil {
				return false, err
			}
			drawn, stands = screen, 0
		}
		stands++
		select {
		case <-ctx.Done():
			return false, nil
		case _, open := <-entered:
			if !open {
				entered = nil // nobody will press anything
			} else if o.Login() {
				return true, nil
			}
		case <-tick.C:
		}
	}
}

// look asks the daemon, and nobody else. All questions are asked at once: one that takes its time takes none of the others'.
func (o Options) look(ctx context.Context) View {
	v := View{Now: o.Now(), Up: o.Uptime(), Version: o.Version, Login: o.Login()}
	v.Asked = v.Now
	var tunnels api.Tunnels
	var all sync.WaitGroup
	all.Go(func() { v.Err = ask(ctx, o.Client, "status", &v.Status) })
	all.Go(func() { v.Untold.Interfaces = ask(ctx, o.Client, "interfaces", &v.Interfaces) })
	all.Go(func() { v.Untold.Neighbors = ask(ctx, o.Client, "bgp", &v.Neighbors) })
	all.Go(func() { v.Untold.Tunnels = ask(ctx, o.Client, "tunnels", &tunnels) })
	all.Wait()
	v.Tunnels = tunnels.Tunnels
	return v
}

func ask[T any](ctx context.Context, c *api.Client, noun string, to *T) (err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if *to, err = api.Show[T](ctx, c, noun); errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s", answerWithin)
	}
	return err
}

// after is what to show behind an earlier view: that one, marked as of when, until nobody has answered for some looks.
func (v View) after(before View) View {
	var answer *api.Failure
	if v.Err == nil || errors.As(v.Err, &answer) {
		return v
	}
	if v.Missed = before.Missed + 1; v.Missed >= silentAfter {
		return v
	}
	before.Now, before.Up, before.Login, before.Version, before.Missed = v.Now, v.Up, v.Login, v.Version, v.Missed
	return before
}
