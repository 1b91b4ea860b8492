package slots

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// slack is for FAT's clusters and the directory.
const slack = 1 << 20

// tries are what a new image has to pass its health gate.
const tries = 3

// InstallOptions are what an operator may insist on.
type InstallOptions struct {
	Downgrade bool // an older version than the one that runs
	Unsigned  bool // on a node without a key alone
}

// Installed is what was staged.
type Installed struct {
	Version  string   `json:"version"`
	File     string   `json:"file"`
	Bytes    int64    `json:"bytes"`
	Key      string   `json:"key,omitempty"` // that signed it
	Replaced []string `json:"replaced"`      // versions
	Running  string   `json:"running"`
	Tries    int      `json:"tries"`
	Next     string   `json:"next"` // the version that a reboot starts
}

// Install verifies an image, and puts it into the slot that does not run. Before it is verified, and there is room for it, nothing is
// written. An error leaves the running slot as it was.
func (m *Machine) Install(ctx context.Context, from string, o InstallOptions) (Installed, error) {
	unlock, err := m.lock(unix.LOCK_NB)
	if err != nil {
		return Installed{}, err
	}
	defer unlock()
	l, err := m.look()
	if err != nil {
		return Installed{}, err
	}
	if err := m.settled(l); err != nil {
		return Installed{}, fmt.Errorf("%w; nothing was written", err)
	}
	keys, err := m.keys(o.Unsigned)
	if err != nil {
		return Installed{}, err
	}
	c, err := obtain(ctx, from, source{dir: m.opts.Notes, most: m.opts.MaxBytes, signed: len(keys) > 0})
	if err != nil {
		return Installed{}, err
	}
	defer c.close()
	in := Installed{Bytes: c.size, Running: m.version, Tries: tries, Replaced: []string{}}
	if len(keys) > 0 {
		if in.Key, err = verify(keys, c.digest, c.signature); err != nil {
			return in, fmt.Errorf("%s: %w; nothing was written", c.name, err)
		}
	}
	if in.Version, err = readUKI(c.file, m.opts.Arch); err != nil {
		return in, fmt.Errorf("%s: %w; nothing was written", c.name, err)
	}
	if err := m.efi.startable(c.file); err != nil {
		return in, fmt.Errorf("%s: %w; nothing was written", c.name, err)
	}
	if err := m.wanted(l, in.Version, o.Downgrade); err != nil {
		return in, fmt.Errorf("%s: %w; nothing was written", c.name, err)
	}
	name := Name{Version: in.Version, Counted: true, Left: tries}
	in.File = name.File()
	if in.Replaced, err = m.place(ctx, l, c, name); err != nil {
		return in, err
	}
	if err := m.notes.forget(in.Version); err != nil {
		return in, err
	}
	if Compare(in.Version, m.version) < 0 {
		// The loader prefers newer versions. For one boot it is told otherwise; who passes the gate then stays.
		if err := m.efi.set(varOneshot, name.id()); err != nil {
			return in, err
		}
	} else if err := m.unpoint(name); err != nil {
		return in, err
	}
	if l, err = m.look(); err != nil {
		return in, err
	}
	next, _ := l.next()
	in.Next = next.Version
	return in, nil
}

// keys are those of which one has to have signed an image; none where the operator wants none and the node has none.
func (m *Machine) keys(unsigned bool) ([]ed25519.PublicKey, error) {
	keys, err := readKeys(m.opts.Keys)
	switch {
	case err != nil:
		return nil, err
	case len(keys) == 0 && !unsigned:
		return nil, fmt.Errorf("this node has no key to check an image with (%s): --unsigned takes one as it is", m.opts.Keys[len(m.opts.Keys)-1])
	case len(keys) > 0 && unsigned:
		return nil, errors.New("this node has keys, so --unsigned is refused: sign the image, or put its maker's key beside them")
	}
	return keys, nil
}

// wanted refuses what is no update. FAT folds the case of names.
func (m *Machine) wanted(l layout, version string, downgrade bool) error {
	switch c := Compare(version, m.version); {
	case c == 0 || strings.EqualFold(version, m.version):
		return fmt.Errorf("it is version %s, which runs here", version)
	case c < 0 && !downgrade:
		return fmt.Errorf("it is version %s, which is older than %s, which runs here: --downgrade takes it", version, m.version)
	case c < 0:
		if err := m.takesOneshot(); err != nil {
			return err
		}
	}
	for _, s := range l.slots { // where none runs from the disk
		if l.kept(s.Name) && strings.EqualFold(s.Version, version) {
			return fmt.Errorf("it is version %s, which this node's disk has and keeps", version)
		}
	}
	return nil
}

// settled refuses an update while the version that runs is not the one that stays: the other slot is then all that a reboot can rely on.
func (m *Machine) settled(l layout) error {
	r, ok := l.running()
	switch {
	case !ok || !r.Counted:
		return nil
	case r.aside():
		return fmt.Errorf("version %s was put aside by a rollback: reboot first, or take that back with `sluice image promote`", r.Version)
	}
	return fmt.Errorf("version %s runs on trial: wait until its health gate has passed (`sluice image status`), or promote it", r.Version)
}

// place copies a candidate into the slot that does not run. The order is that of what a power cut may leave: the copy has a name that
// systemd-boot does not see until it is whole, on the disk, and read back; what it replaces is gone, on the disk, before it gets its
// own. So no two files of one version meet, and the running one is there throughout.
//
// Where an earlier power cut left two names of one file, freeing the second frees again what the first had: both go before the copy
// may be given the same clusters. A name that may be the running slot's own is left for fsck.
func (m *Machine) place(ctx context.Context, l layout, c *candidate, name Name) (replaced []string, err error) {
	leftover, twins := l.removable()
	for _, old := range slices.Concat(l.empty, leftover) {
		if err := m.esp.remove(old); err != nil {
			return nil, err
		}
	}
	others := l.others()
	free, err := m.esp.free()
	if err != nil {
		return nil, err
	}
	var freed int64
	for _, o := range others {
		freed += o.size
	}
	need := c.size + slack
	if free+freed < need {
		return nil, fmt.Errorf("the EFI system partition has no room: the image needs %d MiB, and %d MiB are free or would be; nothing was written",
			need>>20, (free+freed)>>20)
	}
	replaced = []string{}
	clear := func() error {
		for _, o := range others {
			if err := m.esp.remove(o.File()); err != nil {
				return err
			}
			replaced = append(replaced, o.Version)
		}
		others = nil
		return m.esp.sync()
	}
	if free < need || twins {
		if err := clear(); err != nil {
			return replaced, err
		}
	}
	if err := m.copy(ctx, c, name); err != nil {
		return replaced, errors.Join(fmt.Errorf("writing the image: %w; version %s runs on, and a reboot starts it", err, m.version), m.esp.remove(name.File()+staged))
	}
	if err := clear(); err != nil {
		return replaced, err
	}
	if err := m.esp.rename(name.File()+staged, name.File()); err != nil {
		return replaced, err
	}
	slices.Sort(replaced)
	return slices.Compact(replaced), m.esp.sync()
}

// copy writes a candidate, has it on the disk, and reads it back from there: what was verified is what lies there, and it is of the
// version that its name says, also where the medium that it came from gives something else each time.
func (m *Machine) copy(ctx context.Context, c *candidate, name Name) error {
	f, err := m.esp.create(name.File() + staged)
	if err != nil {
		return err
	}
	written, err := digestOf(&steady{newFile: f}, &upTo{ctx, io.NewSectionReader(c.file, 0, c.size)})
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if !bytes.Equal(written, c.digest) {
		return errors.New("the file was changed while it was copied")
	}
	if err := m.esp.sync(); err != nil {
		return err
	}
	r, err := m.esp.open(name.File() + staged)
	if err != nil {
		return err
	}
	defer r.Close()
	read, err := digestOf(io.Discard, &upTo{ctx, io.NewSectionReader(r, 0, c.size+1)})
	if err == nil && !bytes.Equal(read, c.digest) {
		err = errors.New("the EFI system partition gives back something else than was written: see dmesg, the disk may fail")
	}
	if err != nil {
		return err
	}
	if version, err := readUKI(r, m.opts.Arch); err != nil || version != name.Version {
		return errors.Join(fmt.Errorf("the file was changed while it was read: it is not of version %s", name.Version), err)
	}
	return nil
}

// steady syncs a file as it grows. After a power cut FAT has lost what is allocated and not reached from the name yet, until somebody
// runs fsck: it is one step at most.
type steady struct {
	newFile
	since int
}

const step = 4 << 20

func (s *steady) Write(p []byte) (int, error) {
	n, err := s.newFile.Write(p)
	if s.since += n; err != nil || s.since < step {
		return n, err
	}
	s.since = 0
	return n, s.Sync()
}

func digestOf(to io.Writer, from io.Reader) ([]byte, error) {
	digest := sha512.New()
	_, err := io.Copy(io.MultiWriter(to, digest), from)
	return digest.Sum(nil), err
}

// upTo reads until its context ends.
type upTo struct {
	ctx context.Context
	io.Reader
}

func (u *upTo) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.Reader.Read(p)
}
