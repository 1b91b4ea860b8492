package bfd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/sys/unix"

	"sluice/process"
)

// kind is the process that holds all sessions of a daemon. They go on while the daemon restarts, which is what C in their packets
// promises.
var kind = process.Kind{Of: "bfd", Verb: Verb, Version: 1}

// Verb is the word of the command line that a binary answers with Run.
const Verb = "bfdd"

// The requests, beside those of package process. Values are JSON, in one line.
const (
	doSet    = "set"    // the sessions that are wanted
	doReport = "report" // answers report=
	changed  = "changed"
)

// handed is a session as set has it. Mine is our discriminator where the process before had it up; one that does not know it begins anew.
type handed struct {
	Config
	Mine uint32 `json:"mine,omitempty"`
}

// Report is what there is to know.
type Report struct {
	Sessions []Status          `json:"sessions"`
	Discards map[string]uint64 `json:"discards"` // packets that were not believed, by reason
	Priority Priority          `json:"priority"` // of the process; "" of one that an older program started
}

// Run is the whole life of the process. It ends with ctx; peers hear that the sessions are switched off. program is the version of
// the binary.
func Run(ctx context.Context, program string) error {
	priority := prioritize()
	s, err := Listen(slog.New(slog.DiscardHandler), true) // the daemon logs what it hears
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := process.Listen()
	if err != nil {
		return err
	}
	defer l.Close()
	journal := process.NewJournal()
	daemons := process.Server{Version: kind.Version, Program: program, Journal: journal, Answer: func(r process.Request, w io.Writer) error {
		return s.answer(r, priority, w)
	}}
	go daemons.Serve(l)
	for {
		select {
		case <-s.Changed():
			journal.Say(changed)
		case <-ctx.Done():
			return s.Set(nil)
		}
	}
}

func (s *Server) answer(r process.Request, priority Priority, w io.Writer) error {
	switch r.Do {
	case doSet:
		var list []handed
		if json.Unmarshal([]byte(r.Value), &list) != nil {
			return unix.EINVAL
		}
		wanted, before := []Config{}, map[Config]uint32{}
		for _, h := range list {
			if wanted = append(wanted, h.Config); h.Mine != 0 {
				before[h.Config] = h.Mine
			}
		}
		if s.Resume(before); s.Set(wanted) != nil {
			return unix.EINVAL
		}
		return nil
	case doReport:
		text, err := json.Marshal(Report{s.Status(), s.Discards(), priority})
		if err == nil {
			_, err = fmt.Fprintf(w, "report=%s\n", text)
		}
		return err
	}
	return unix.EOPNOTSUPP
}
