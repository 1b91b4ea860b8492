package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

const pendingFile = "pending.json"

// pendingRecord is pending.json: a revision is live and not confirmed. It is on the disk before the revision's first
// step and goes away after its end (confirmed or reverted) is in the revision's metadata. Where the two disagree the
// metadata is right.
type pendingRecord struct {
	Schema   int           `json:"schema"`
	Revision int           `json:"revision"`
	Base     int           `json:"base"` // 0: nothing at all
	BootID   string        `json:"boot_id"`
	Deadline time.Duration `json:"deadline_boottime_ns"`
	// Confirm is true where an operator must confirm; else the checks alone decide, at the deadline.
	Confirm  bool            `json:"confirm"`
	Baseline json.RawMessage `json:"baseline,omitempty"`
}

// loadPending returns nil where nothing is pending. A torn record is nil, too: its revision is then found pending
// without a record and reverted, which is the safe side.
func (s *Store) loadPending() (*pendingRecord, error) {
	var p pendingRecord
	err := decode(filepath.Join(s.dir, pendingFile), &p)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTorn) {
		return nil, nil
	}
	return &p, err
}

func (s *Store) savePending(p pendingRecord) error {
	p.Schema = schema
	b, err := encode(p)
	if err != nil {
		return err
	}
	if err := s.disk.replace(filepath.Join(s.dir, pendingFile), b); err != nil {
		return fmt.Errorf("writing the pending state: %w", err)
	}
	return nil
}

func (s *Store) clearPending() error {
	if err := s.disk.remove(filepath.Join(s.dir, pendingFile)); err != nil {
		return fmt.Errorf("removing the pending state: %w", err)
	}
	return nil
}
