package daemon

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"sluice/control/compile"
	"sluice/xdp/pin"
)

// pinWatch hears of pins that are deleted: bpffs tells inotify as every file system does. With its last pin a link lets go of its hook.
type pinWatch struct {
	dir     *pin.Dir
	log     *slog.Logger
	watcher *fsnotify.Watcher // nil: there is no inotify to be had
	wake    chan<- struct{}
}

// watchPins begins to hear, and wakes whoever looks for what is missing.
func watchPins(dir string, deleted chan<- struct{}, log *slog.Logger) *pinWatch {
	w := &pinWatch{dir: pin.At(dir), log: log, wake: deleted}
	var err error
	if w.watcher, err = fsnotify.NewWatcher(); err != nil {
		w.watcher = nil
		log.Warn("no events of pins that somebody deletes, looking every while instead", "every", inspection, "error", err)
		return w
	}
	w.addAll()
	return w
}

func (w *pinWatch) close() {
	if w.watcher != nil {
		_ = w.watcher.Close()
	}
}

// add watches the directories at and below path. It says whether there are any.
func (w *pinWatch) add(path string) (any bool) {
	err := w.dir.EachRoom(path, func(room string) {
		any = true
		if err := w.watcher.Add(room); err != nil { // it may have gone meanwhile
			w.log.Debug("watch pins", "error", err)
		}
	})
	if err != nil {
		w.log.Debug("watch pins", "error", err)
	}
	return any
}

// addAll watches the directory above as well, which tells when ours is made anew.
func (w *pinWatch) addAll() {
	if err := w.watcher.Add(filepath.Dir(w.dir.Path())); err != nil {
		w.log.Debug("watch pins", "error", err)
	}
	w.add(w.dir.Path())
}

// run keeps the watches, too: a directory that is made anew has none.
func (w *pinWatch) run(ctx context.Context) error {
	if w.watcher == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(inspection)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.addAll()
		case <-w.watcher.Errors: // an overflow: any pin may have gone
			w.addAll()
			wake(w.wake)
		case e := <-w.watcher.Events:
			gone := e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename)
			// What went out of a new directory before it was watched is found missing as well.
			if w.ours(e.Name) && (gone || e.Has(fsnotify.Create) && w.add(e.Name)) {
				wake(w.wake)
			}
		}
	}
}

// ours leaves out the other entries of the directory above.
func (w *pinWatch) ours(path string) bool {
	return path == w.dir.Path() || strings.HasPrefix(path, w.dir.Path()+"/")
}

// lacksPins says whether a pin is gone that the hooks of want need. It costs a look at names.
func (d *Daemon) lacksPins(want *compile.Desired) bool {
	inXDP, err1 := d.xdp.Lacks(want.XDP)
	inTC, err2 := d.tc.Lacks(want.TC)
	if err := errors.Join(err1, err2); err != nil {
		d.opts.Log.Debug("look for pins", "error", err)
	}
	return inXDP || inTC
}
