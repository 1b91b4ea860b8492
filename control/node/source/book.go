package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sluice/control/disk"
)

// Outcome says how far a source came.
type Outcome string

// The outcomes. What was on trial when the power was cut is decided by what became of its revision: the engine's records are right.
const (
	OnTrial  Outcome = "trial"
	Accepted Outcome = "accepted"
	Rejected Outcome = "rejected" // not tried again
)

// Trial is what is known of a source that was met once.
type Trial struct {
	Digest   string    `json:"digest"`
	Source   Origin    `json:"source"`
	Outcome  Outcome   `json:"outcome"`
	Revision int       `json:"revision,omitempty"` // that it became; 0: none
	Why      string    `json:"why,omitempty"`      // it was rejected
	At       time.Time `json:"at"`                 // of the last change
}

// book is boot-trials.json of the state directory.
type book struct {
	Schema int     `json:"schema"`
	Trials []Trial `json:"trials"` // oldest first
}

const (
	bookName = "boot-trials.json"
	maxBook  = 64 // sources that are remembered
)

// errNewer says that a newer sluice wrote the book; nothing is changed in it.
var errNewer = errors.New("written by a newer sluice")

// readBook takes a damaged book for an empty one: what became of a source is in the history of revisions, too.
func readBook(stateDir string) (b book, damaged error, err error) {
	path := filepath.Join(stateDir, bookName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil, nil
	} else if err != nil {
		return b, nil, err
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return book{}, fmt.Errorf("%s: %w", path, err), nil
	}
	if b.Schema > schema {
		return book{}, nil, fmt.Errorf("%s: %w", path, errNewer)
	}
	return b, nil, nil
}

func (b *book) find(digest string) *Trial {
	for i := range b.Trials {
		if b.Trials[i].Digest == digest {
			return &b.Trials[i]
		}
	}
	return nil
}

// put writes a trial before anything that it speaks of is done.
func (b *book) put(stateDir string, t Trial) error {
	b.Trials = slices.DeleteFunc(b.Trials, func(old Trial) bool { return old.Digest == t.Digest })
	b.Trials = append(b.Trials, t)
	b.Trials = b.Trials[max(0, len(b.Trials)-maxBook):]
	b.Schema = schema
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return disk.Replace(filepath.Join(stateDir, bookName), append(text, '\n'))
}

// Boot is what this boot found, and what became of it.
type Boot struct {
	Record
	Outcome  Outcome `json:"outcome,omitempty"` // "": not looked at yet, or there was no file
	Revision int     `json:"revision,omitempty"`
	Why      string  `json:"why,omitempty"`
}

// Seen is the boot of this machine. fs.ErrNotExist: it does not boot that way.
func Seen(dir, stateDir string) (Boot, error) {
	r, err := ReadRecord(dir)
	if err != nil {
		return Boot{}, err
	}
	out := Boot{Record: r}
	b, _, err := readBook(stateDir)
	if t := b.find(r.Digest); t != nil && r.Digest != "" {
		out.Outcome, out.Revision, out.Why = t.Outcome, t.Revision, t.Why
	}
	return out, err
}

// Text is one line for a person.
func (b Boot) Text() string {
	if b.Source == None {
		return "no configuration was found"
	}
	text := string(b.Source)
	if b.Device != "" {
		text += " " + b.Device
	}
	text += fmt.Sprintf(" (%.12s)", b.Digest)
	switch b.Outcome {
	case Accepted:
		return fmt.Sprintf("%s: accepted as revision %d", text, b.Revision)
	case Rejected:
		return fmt.Sprintf("%s: rejected: %s", text, b.Why)
	case OnTrial:
		return text + ": on trial"
	}
	return text + ": not decided yet"
}
