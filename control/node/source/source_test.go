package source

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// shelf are media that are directories.
type shelf struct {
	list   []Medium
	late   int // lists that are empty first
	usb    bool
	broken map[string]bool
}

func (s *shelf) List(context.Context) ([]Medium, error) {
	if s.late > 0 {
		s.late--
		return nil, nil
	}
	return s.list, nil
}

func (s *shelf) Open(m Medium) (string, func(), error) {
	if s.broken[m.Path] {
		return "", nil, errors.New("mount: input/output error")
	}
	return m.Path, func() {}, nil
}

func (s *shelf) Expected() bool { return s.usb }

// bench is a machine before it boots.
type bench struct {
	t     *testing.T
	dir   string
	shelf shelf
	Options
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), shelf: shelf{broken: map[string]bool{}}}
	b.Options = Options{Dir: filepath.Join(b.dir, "boot"), StateDir: filepath.Join(b.dir, "state"), Media: &b.shelf, Log: discard, Wait: time.Minute,
		Now: func() time.Time { return time.Unix(0, 0) }}
	return b
}

// medium adds one that holds files: pairs of a name and its contents.
func (b *bench) medium(m Medium, files ...string) Medium {
	b.t.Helper()
	m.Path = filepath.Join(b.dir, fmt.Sprintf("medium%d", len(b.shelf.list)))
	if err := os.MkdirAll(m.Path, 0o700); err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(files); i += 2 {
		write(b.t, filepath.Join(m.Path, files[i]), files[i+1])
	}
	b.shelf.list = append(b.shelf.list, m)
	return m
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) credential(text string) {
	b.Credentials = filepath.Join(b.dir, "credentials")
	write(b.t, filepath.Join(b.Credentials, Credential), text)
}

// find is one boot; it fails where the record is not told alike everywhere.
func (b *bench) find() Record {
	b.t.Helper()
	r, err := Find(b.t.Context(), b.Options)
	if err != nil {
		b.t.Fatal(err)
	}
	beside, err := os.ReadFile(filepath.Join(b.Dir, RecordName))
	kept, failed := os.ReadFile(filepath.Join(b.StateDir, "boot-source.json"))
	if err := errors.Join(err, failed); err != nil || string(beside) != string(kept) {
		b.t.Errorf("records: %v\n%s\n%s", err, beside, kept)
	}
	return r
}

// holds says what lies in the boot directory: name by name, but for the record.
func (b *bench) holds(want ...string) {
	b.t.Helper()
	var have []string
	err := filepath.WalkDir(b.Dir, func(path string, e fs.DirEntry, err error) error {
		if name, _ := filepath.Rel(b.Dir, path); err == nil && !e.IsDir() && name != RecordName {
			have = append(have, name)
		}
		return err
	})
	if err != nil || !slices.Equal(have, want) {
		b.t.Errorf("the boot directory holds %q (%v), want %q", have, err, want)
	}
	if left, _ := filepath.Glob(b.Dir + ".*"); len(left) > 0 {
		b.t.Errorf("left over: %q", left)
	}
}

var (
	stick     = Medium{Stick: true}
	partition = Medium{Serves: true}
)

const (
	ofCredential = "node: {name: credential}\n"
	ofStick      = "node: {name: stick}\n"
	ofPartition  = "node: {name: partition}\n"
)

func TestTheOrderOfSources(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		add  func()
		want Origin
		text string
	}{
		{func() {}, None, ""},
		{func() { b.medium(partition, FileName, ofPartition) }, FromPartition, ofPartition},
		{func() { b.medium(stick, FileName, ofStick) }, FromStick, ofStick},
		{func() { b.credential(ofCredential) }, FromCredential, ofCredential},
	} {
		c.add()
		r := b.find()
		text, _ := os.ReadFile(filepath.Join(b.Dir, FileName))
		if r.Source != c.want || string(text) != c.text || len(r.Problems) > 0 || (r.Digest == "") != (c.want == None) {
			t.Errorf("want %s: %+v, %q", c.want, r, text)
		}
	}
	b.holds(FileName)
	// What was there at the last boot and is gone is no source of this one.
	b.shelf.list, b.Credentials = nil, ""
	if r := b.find(); r.Source != None {
		t.Errorf("%+v", r)
	}
	b.holds()
}

func TestABadSourceIsAStatedProblem(t *testing.T) {
	large := strings.Repeat("#", maxFile+1)
	for _, c := range []struct {
		name  string
		bench func(*bench)
		want  Origin
		told  string
	}{
		{"two sticks", func(b *bench) { b.medium(stick, FileName, ofStick); b.medium(stick, FileName, ofStick) }, FromPartition, "several sticks with the label SLUICE-CONFIG"},
		{"a stick that cannot be read", func(b *bench) { b.shelf.broken[b.medium(stick).Path] = true }, FromPartition, "(usb) cannot be read: mount: input/output error"},
		{"a stick without the file", func(b *bench) { b.medium(stick, "readme.txt", "") }, FromPartition, "has no sluice.yaml"},
		{"a file that is too large", func(b *bench) { b.medium(stick, FileName, large) }, FromPartition, "larger than 16777216 bytes"},
		{"a directory of that name", func(b *bench) { b.medium(stick, FileName+"/x", "") }, FromPartition, "not a regular file"},
		{"a link out of the stick", func(b *bench) {
			m := b.medium(stick)
			if err := os.Symlink("/etc/passwd", filepath.Join(m.Path, FileName)); err != nil {
				b.t.Fatal(err)
			}
		}, FromPartition, "escapes"},
		{"another disk's", func(b *bench) { b.medium(Medium{}, FileName, ofStick) }, FromPartition, "neither on a removable disk nor on this image's"},
		{"a credential that is too large", func(b *bench) { b.credential(large) }, FromPartition, "the credential sluice.config is passed over"},
		// These are the source, and the daemon says all that is wrong with them.
		{"no YAML", func(b *bench) { b.medium(stick, FileName, "node: [") }, FromStick, "sluice.yaml is bad"},
		{"a set file that is not there", func(b *bench) { b.medium(stick, FileName, "sets: [{name: a, files: [a.netset]}]\n") }, FromStick, "a.netset"},
		{"a set file beside a credential", func(b *bench) { b.credential("sets: [{name: a, files: [a.netset]}]\n") }, FromCredential, "a credential has no files beside it"},
		{"a set file outside the stick", func(b *bench) { b.medium(stick, FileName, "sets: [{name: a, files: [../a.netset]}]\n") }, FromStick, "escapes"},
		{"a watched set file that is not there", func(b *bench) {
			b.medium(stick, FileName, "sets: [{name: a, watch: true, files: [a.netset]}]\n")
		}, FromStick, "watched set file a.netset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.medium(partition, FileName, ofPartition)
			c.bench(b)
			r := b.find()
			if r.Source != c.want || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], c.told) {
				t.Errorf("%s: %q", r.Source, r.Problems)
			}
			b.holds(FileName)
		})
	}
}

// TestWhatTheFileNamesComesAlong: set files, watched ones too, and nothing else.
func TestWhatTheFileNamesComesAlong(t *testing.T) {
	b := newBench(t)
	file := "sets: [{name: a, files: [sets/a.netset]}, {name: b, watch: true, files: [b.netset]}]\n"
	m := b.medium(stick, FileName, file, "sets/a.netset", "192.0.2.0/24\n", "b.netset", "198.51.100.0/24\n", "photo.jpg", "x")
	before := b.find()
	b.holds("b.netset", "sets/a.netset", FileName)
	if !slices.Equal(before.Files, []string{"b.netset", "sets/a.netset"}) || len(before.Problems) > 0 {
		t.Errorf("%+v", before)
	}
	write(t, filepath.Join(m.Path, "b.netset"), "203.0.113.0/24\n")
	if r := b.find(); r.Digest != before.Digest {
		t.Error("a watched set file makes another source")
	}
	write(t, filepath.Join(m.Path, "sets/a.netset"), "203.0.113.0/24\n")
	if r := b.find(); r.Digest == before.Digest {
		t.Error("another set file makes no other source")
	}
}

func TestKeysGoIntoTheirDirectory(t *testing.T) {
	b := newBench(t)
	dir := keysDir(b.StateDir)
	file := fmt.Sprintf(`bgp: {neighbors: [{password_file: %s/tor.key}, {password_file: /etc/sluice/far.key}, {password_file: %[1]s/old.key}, {password_file: %[1]s/none.key}]}`, dir)
	b.medium(stick, FileName, file+"\n", "keys/tor.key", "secret-1", "keys/far.key", "secret-2", "keys/old.key", "secret-3", "keys/unasked.key", "secret-4")
	write(t, filepath.Join(dir, "old.key"), "secret-old")
	r := b.find()
	if !slices.Equal(r.Keys, []string{"tor.key"}) {
		t.Errorf("kept %q", r.Keys)
	}
	info, err := os.Stat(filepath.Join(dir, "tor.key"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("its mode: %v, %v", info, err)
	}
	if old, _ := os.ReadFile(filepath.Join(dir, "old.key")); string(old) != "secret-old" {
		t.Errorf("a key that was there holds %q", old)
	}
	told := strings.Join(r.Problems, "\n")
	for _, want := range []string{"far.key is not taken: the file names it elsewhere; write " + dir, "old.key is not taken: " + dir + "/old.key is there"} {
		if !strings.Contains(told, want) {
			t.Errorf("not told: %q in\n%s", want, told)
		}
	}
	if text := string(r.encode()); strings.Contains(text, "secret-") {
		t.Errorf("a secret is in the record:\n%s", text)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("keys: %v %v", entries, err)
	}
	b.holds(FileName)
	if again := b.find(); len(again.Keys) > 0 { // the same key is no other one
		t.Errorf("at the next boot: %+v", again)
	}
}

func TestAStickIsWaitedFor(t *testing.T) {
	b := newBench(t)
	b.medium(stick, FileName, ofStick)
	b.shelf.late, b.shelf.usb = 3, true
	if r := b.find(); r.Source != FromStick {
		t.Errorf("%+v", r)
	}
}

func TestWhatLsblkSaysOfDisks(t *testing.T) {
	text := `{"blockdevices": [
		{"path":"/dev/sda","pkname":null,"fstype":null,"label":null,"partlabel":null,"rm":false,"hotplug":false},
		{"path":"/dev/sda2","pkname":"sda","fstype":"vfat","label":"SLUICE-CONFIG","partlabel":"config","rm":false,"hotplug":false},
		{"path":"/dev/sda3","pkname":"sda","fstype":"ext4","label":null,"partlabel":"sluice-data","rm":false,"hotplug":false},
		{"path":"/dev/sdb","pkname":null,"fstype":"vfat","label":"SLUICE-CONF","partlabel":null,"rm":true,"hotplug":true},
		{"path":"/dev/sdb1","pkname":"sdb","fstype":"vfat","label":"SLUICE-CONF","partlabel":null,"rm":true,"hotplug":true},
		{"path":"/dev/sdc1","pkname":"sdc","fstype":"ext4","label":"SLUICE-CONFIG","partlabel":null,"rm":false,"hotplug":true},
		{"path":"/dev/sdd1","pkname":"sdd","fstype":"vfat","label":"SLUICE-CONFIG","partlabel":null,"rm":false,"hotplug":false},
		{"path":"/dev/sde1","pkname":"sde","fstype":"vfat","label":"PHOTOS","partlabel":null,"rm":true,"hotplug":true},
		{"path":"/dev/sdf2","pkname":"sdf","fstype":"vfat","label":"SLUICE-CONFIG","partlabel":"config","rm":true,"hotplug":true},
		{"path":"/dev/sdf3","pkname":"sdf","fstype":"ext4","label":null,"partlabel":"sluice-data","rm":true,"hotplug":true}]}`
	got, err := media([]byte(text))
	want := []Medium{{"/dev/sda2", "vfat", false, true}, {"/dev/sdb", "vfat", true, false}, {"/dev/sdc1", "ext4", true, false},
		{"/dev/sdd1", "vfat", false, false}, {"/dev/sdf2", "vfat", false, true}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\n%+v", err, got)
	}
}

// TestAStickIsNeverWrittenTo: of a real file system, and of the one that would write at a plain read-only mount. FAT is for tests of the
// image: not every kernel that tests run on has it.
func TestAStickIsNeverWrittenTo(t *testing.T) {
	image := filepath.Join(t.TempDir(), "stick.img")
	write(t, image, "")
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.ext4", "-q", "-L", Label, image)
	device := strings.TrimSpace(command(t, "losetup", "--find", "--show", image))
	defer command(t, "losetup", "--detach", device)
	mounted := t.TempDir()
	command(t, "mount", device, mounted)
	write(t, filepath.Join(mounted, FileName), ofStick)
	command(t, "umount", mounted)
	before := digestOf(t, image)

	b := newBench(t)
	b.Media = disks{Disks{filepath.Join(b.dir, "mnt")}, []Medium{{Path: device, Type: "ext4", Stick: true}}}
	if r := b.find(); r.Source != FromStick || len(r.Problems) > 0 {
		t.Errorf("%+v", r)
	}
	b.holds(FileName)
	if left, err := os.ReadDir(filepath.Join(b.dir, "mnt")); err != nil || len(left) > 0 {
		t.Errorf("left mounted: %v %v", left, err)
	}
	if digestOf(t, image) != before {
		t.Error("it was written to")
	}
	b.Media = disks{Disks{filepath.Join(b.dir, "mnt")}, []Medium{{Path: device, Type: "ntfs", Stick: true}}}
	if r := b.find(); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], `its file system is "ntfs"`) {
		t.Errorf("%+v", r)
	}
}

// disks are real ones that somebody else has listed.
type disks struct {
	Disks
	list []Medium
}

func (d disks) List(context.Context) ([]Medium, error) { return d.list, nil }
func (disks) Expected() bool                           { return false }

func digestOf(t *testing.T, path string) [32]byte {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

func command(t *testing.T, words ...string) string {
	t.Helper()
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", words, err, out)
	}
	return string(out)
}

func TestADataPartitionThatDoesNotOpenHoldsTheConfigurationBack(t *testing.T) {
	b := newBench(t)
	b.credential(first)
	b.Disk = filepath.Join(b.dir, "disk")
	write(t, filepath.Join(b.Disk, "notice"), "it has no recovery key\n")
	if r := b.find(); r.Source != FromCredential || !slices.Equal(r.Problems, []string{"it has no recovery key"}) || r.Held {
		t.Errorf("%+v", r)
	}
	b.holds(FileName)
	write(t, filepath.Join(b.Disk, "held"), "the TPM does not open it\n")
	if r := b.find(); r.Source != None || r.Digest != "" || !slices.Equal(r.Problems, []string{"the TPM does not open it", "it has no recovery key"}) || !r.Held {
		t.Errorf("%+v", r)
	}
	b.holds()
}
