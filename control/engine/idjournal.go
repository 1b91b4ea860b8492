package engine

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

const (
	ruleIDFile    = "rule-ids.json"
	ruleIDJournal = "rule-ids.journal"

	// maxIDJournal are the bytes from which on the rule ids are written anew instead: to read so much takes 10 ms.
	maxIDJournal = 1 << 20
)

// idJournal is the state of rule-ids.journal: what changed about the ids since rule-ids.json was written, one idChange a
// line. To write 100,000 ids anew for a new rule takes ten times what the line does.
//
// Each line names the file that it goes on from. So a journal that a crash, or an older sluice, left behind beside another
// file says nothing. A line that is not whole was never answered for: it and what follows it are not read.
type idJournal struct {
	base   string // ruleIDs.Base of rule-ids.json as it is; "": not known
	length int    // of the lines that go on from it; the file has no others, unless it is 0
}

// loadRuleIDs returns empty ids where there are none or the file is damaged: the counters then start anew.
func (s *Store) loadRuleIDs() (ruleIDs, error) {
	var r ruleIDs
	s.ids, s.lostIDs = idJournal{}, nil
	err := decode(filepath.Join(s.dir, ruleIDFile), &r)
	if err == nil && !r.plausible() {
		err = fmt.Errorf("%s: ids that no compilation gave: %w", ruleIDFile, errTorn)
	}
	if errors.Is(err, errTorn) {
		s.lostIDs = err
	}
	if s.lostIDs != nil || errors.Is(err, fs.ErrNotExist) {
		return ruleIDs{}, nil
	}
	if err != nil || r.Base == "" {
		return r, err
	}
	lines, err := os.ReadFile(filepath.Join(s.dir, ruleIDJournal))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	at := idJournal{base: r.Base}
	for len(lines) > 0 {
		line, rest, whole := bytes.Cut(lines, []byte("\n"))
		var c idChange
		if !whole || json.Unmarshal(line, &c) != nil || c.Base != at.base {
			break
		}
		r, at.length, lines = r.replay(c), at.length+len(line)+1, rest
	}
	if !r.plausible() {
		s.lostIDs = fmt.Errorf("%s: ids that no compilation gave: %w", ruleIDJournal, errTorn)
		return ruleIDs{}, nil
	}
	if len(lines) == 0 || at.length == 0 {
		s.ids = at
	}
	return r, nil
}

// saveRuleIDs writes r, to which c leads from what is on the disk; nil: that is not known.
func (s *Store) saveRuleIDs(r ruleIDs, c *idChange) error {
	if c != nil && s.ids.base != "" {
		c.Base = s.ids.base
		line, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if s.ids.length+len(line) < maxIDJournal {
			return s.appendIDs(append(line, '\n'))
		}
	}
	s.ids = idJournal{}
	r.Schema, r.Base = schema, rand.Text()
	b, err := r.encode()
	if err != nil {
		return err
	}
	if err := s.disk.replace(filepath.Join(s.dir, ruleIDFile), b); err != nil {
		return fmt.Errorf("writing the rule ids: %w", err)
	}
	s.ids.base = r.Base
	return nil
}

// appendIDs adds a line to the journal. After a failure its end is not known, so the next ids are written anew.
func (s *Store) appendIDs(line []byte) error {
	at := s.ids
	s.ids = idJournal{}
	path := filepath.Join(s.dir, ruleIDJournal)
	var err error
	if at.length == 0 {
		err = s.disk.replace(path, line)
	} else {
		err = s.disk.extend(path, line)
	}
	if err != nil {
		return fmt.Errorf("writing the rule ids: %w", err)
	}
	at.length += len(line)
	s.ids = at
	return nil
}

// encode is json.Marshal without the order of names, which is most of the time that 100,000 of them take.
func (r ruleIDs) encode() ([]byte, error) {
	out := make([]byte, 0, 40*len(r.Current)+100*len(r.Retired)+64)
	out = fmt.Appendf(out, `{"schema":%d,"base":%q,"current":{`, r.Schema, r.Base)
	for name, id := range r.Current {
		if out[len(out)-1] != '{' {
			out = append(out, ',')
		}
		if plain(name) {
			out = append(append(append(out, '"'), name...), '"')
		} else {
			quoted, err := json.Marshal(name)
			if err != nil {
				return nil, err
			}
			out = append(out, quoted...)
		}
		out = strconv.AppendUint(append(out, ':'), uint64(id), 10)
	}
	retired, err := json.Marshal(r.Retired)
	if err != nil {
		return nil, err
	}
	out = append(append(out, `},"retired":`...), retired...)
	return append(out, '}'), nil
}

// plain says whether a name is in JSON what it is.
func plain(name string) bool {
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
