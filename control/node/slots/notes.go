package slots

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sluice/control/disk"
)

// notes is a directory that versions of Sluice leave each other notes in: small files, each written by one version about itself. A
// note of a newer form is not understood, and is as good as none; nobody writes in another version's.
type notes string

// noteSchema grows when an older version would misread a note.
const noteSchema = 1

// before is what an update must not lose: written by a version that stays, about the time before the next boot.
type before struct {
	Schema      int       `json:"schema"`
	Version     string    `json:"version"`
	At          time.Time `json:"at"`
	Revision    int       `json:"revision"`
	Established []string  `json:"established"` // BGP neighbors
	Bad         []string  `json:"bad"`         // types of the conditions that were bad then: no update is to blame for them
}

// verdict is what the health gate found of a version, the last time.
type verdict struct {
	Schema  int       `json:"schema"`
	Version string    `json:"version"`
	At      time.Time `json:"at"`
	Passed  bool      `json:"passed"`
	Why     []string  `json:"why,omitempty"`
	Left    int       `json:"tries_left"` // when it was judged
}

func (n notes) verdictFile(version string) string { return "gate-" + version + ".json" }

func (n notes) write(name string, v any) error {
	if err := os.MkdirAll(string(n), 0o700); err != nil {
		return err
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return disk.Replace(filepath.Join(string(n), name), append(data, '\n'))
}

// read is false where there is no note, or none that is understood.
func (n notes) read(name string, to any) (bool, error) {
	data, err := os.ReadFile(filepath.Join(string(n), name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	if head.Schema != noteSchema {
		return false, nil
	}
	return true, json.Unmarshal(data, to)
}

// forget removes what was said of a version that is installed anew.
func (n notes) forget(version string) error {
	err := os.Remove(filepath.Join(string(n), n.verdictFile(version)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
