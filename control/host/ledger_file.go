package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"sluice/control/disk"
)

// save writes the ledger. That the disk has no room, or takes nothing more, is reported and keeps no step from being done: a ledger of
// another boot is void, so all that is lost is what the next process of this boot has to know, and the spare has that, which lies in
// memory. Where that has no room either, the next process takes what was set for found there, and leaves it alone. Any other
// error is the step's.
func (h *Host) save() error {
	h.ledger.Serial++
	data, err := json.Marshal(h.ledger)
	if err != nil {
		return fmt.Errorf("encode host ledger: %w", err)
	}
	data = append(data, '\n')
	file := data
	if h.ledger.empty() {
		file = nil
		if h.spared && writeLedger(h.spare, data) != nil { // first: left alone it would claim what was given back
			h.spared = writeLedger(h.spare, nil) != nil
		}
	}
	if err = writeLedger(h.path, file); err == nil && h.spared {
		h.spared = writeLedger(h.spare, nil) != nil
	}
	h.owed = err != nil
	refused := h.owed && !disk.Full(err)
	if h.owed && h.spare != "" {
		// An empty one as well: the file that cannot be removed is older.
		if spareErr := writeLedger(h.spare, data); spareErr == nil {
			h.spared, refused, err = true, false, fmt.Errorf("%w; until there is room it is in %s", err, h.spare)
		} else {
			err = fmt.Errorf("%w; and %w", err, spareErr)
		}
	}
	if h.owed && !h.spared {
		err = fmt.Errorf("%w: if the daemon ends before there is room, what it set here since counts as found there, and `sluice down` leaves it", err)
	}
	h.wrote(err)
	if refused {
		return fmt.Errorf("write host ledger: %w", err)
	}
	return nil
}

// Settle writes the ledger where the last save could not.
func (h *Host) Settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.owed {
		_ = h.save() // it reports
	}
}

// load reads the ledger, from the spare where that is later.
func (h *Host) load(namespace string) (err error) {
	if h.ledger, err = loadLedger(h.path, namespace); err != nil || h.spare == "" || !ownFile(h.spare) {
		return err
	}
	spare, err := loadLedger(h.spare, namespace)
	if err != nil {
		return err
	}
	h.spared = true
	if spare.Serial > h.ledger.Serial {
		h.ledger, h.owed = spare, true
	}
	return nil
}

// ownFile says whether nobody but us can have written a file: the directory of a socket may be open to others.
func ownFile(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(owner.Uid) == os.Geteuid() && info.Mode().Perm()&0o022 == 0
}

// loadLedger reads the file; a missing file and one of another boot or namespace are an empty ledger.
func loadLedger(path, namespace string) (*ledger, error) {
	fresh := &ledger{Namespace: namespace}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host ledger: %w", err)
	}
	var l ledger
	if err := json.Unmarshal(data, &l); err != nil {
		if unwritten(data, namespace) {
			return fresh, nil
		}
		return nil, fmt.Errorf("%w: %s: %w; move the file away to go on (what is on the links now will count as found there)",
			ErrLedger, path, err)
	}
	if l.Namespace != namespace {
		return fresh, nil
	}
	return &l, nil
}

// writeLedger replaces a file as one step; without data it has none.
func writeLedger(path string, data []byte) error {
	if data != nil {
		return replaceFile(path, data)
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// unwritten says that a power cut was before the disk had all of the file, which is of another boot then: it has no contents, or
// zeros, or the beginning of what that boot wrote.
func unwritten(data []byte, namespace string) bool {
	zeros := len(bytes.Trim(data, "\x00")) == 0
	id, whole := bytes.CutPrefix(data, []byte(`{"namespace":"`))
	return zeros || whole && bytes.ContainsRune(id, '"') && !bytes.HasPrefix(id, []byte(namespace+`"`))
}

// replaceFile writes by O_EXCL and rename. It does not wait for the disk: a killed process loses nothing by that, and after a
// power cut the ledger is of another boot and void. A workload takes five steps, each with its claim, of 5 to 10 ms of fsync;
// and of 3 ms where ext4 writes out a file that takes another's name (auto_da_alloc), so the two exchange names.
func replaceFile(path string, data []byte) error {
	temp := path + ".tmp"
	// A leftover of a crash: the daemon's lock makes us the only writer.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE) == nil {
		return os.Remove(temp)
	}
	return os.Rename(temp, path) // there is none to exchange with, or the file system does not know how
}
