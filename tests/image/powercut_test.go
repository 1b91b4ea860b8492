//go:build image

package image

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/control/node/slots"
)

// espAfter is the EFI system partition as a power cut leaves it, read as the firmware reads it: by the names and chains of FAT alone.
type espAfter struct {
	file  *os.File
	first string            // the version that runs; its file is never written to
	chain string            // where that lies
	whole map[string]string // the sums of images by version
	empty int               // disks with a name of an image and nothing behind it
}

func (e *espAfter) path() string { return e.file.Name() }

func (e *espAfter) ask(tool string, args ...string) (string, error) {
	out, err := exec.Command(tool, append([]string{"-i", e.path()}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// names are the files in EFI/Linux.
func (e *espAfter) names() (out []string, err error) {
	said, err := e.ask("mdir", "-b", "::EFI/Linux")
	for name := range strings.Lines(said) {
		if _, file, ok := strings.Cut(strings.TrimSpace(name), "/EFI/Linux/"); ok {
			out = append(out, file)
		}
	}
	if err != nil {
		err = fmt.Errorf("mdir: %w: %s", err, said)
	}
	return out, err
}

// bootable says what is wrong with what systemd-boot would start: it is whole, and the version that runs is there as it was.
func (e *espAfter) bootable() error {
	files, err := e.names()
	if err != nil {
		return err
	}
	var names []slots.Name
	for _, file := range files {
		chain, err := e.ask("mshowfat", "::EFI/Linux/"+file)
		if err != nil {
			return fmt.Errorf("mshowfat: %w: %s", err, chain)
		}
		if n, ok := slots.ParseName(file); !ok {
			continue
		} else if strings.Contains(chain, "<") {
			names = append(names, n)
		} else { // the loader passes over it
			e.empty++
		}
	}
	i := slices.IndexFunc(names, func(n slots.Name) bool { return n.Version == e.first })
	if i < 0 {
		return fmt.Errorf("the version that runs is gone: %q", files)
	}
	if chain, err := e.ask("mshowfat", "::EFI/Linux/"+names[i].File()); err != nil || chain != e.chain {
		return fmt.Errorf("the version that runs lies elsewhere: %s, and was at %s: %v", chain, e.chain, err)
	}
	next, ok := slots.Choose(names, "", "")
	if !ok || next.Version == e.first {
		return nil
	}
	if sum, err := e.sum(next.File()); err != nil || sum != e.whole[next.Version] {
		return fmt.Errorf("%s is chosen, and is not whole (%v)", next.File(), err)
	}
	return nil
}

func (e *espAfter) sum(file string) (string, error) {
	cmd := exec.Command("mcopy", "-n", "-i", e.path(), "::EFI/Linux/"+file, "-")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	sum := sha256.New()
	_, copied := io.Copy(sum, out)
	if err := cmd.Wait(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), copied
}

// cutChain is what fsck says of an image whose clusters end before it does.
var cutChain = regexp.MustCompile(`(?i)\.new\n\s+contains a free cluster`)

// oddity is what a power cut may leave of FAT's tables that a kernel could stumble over, "" where there is none: a chain that ends in
// nothing, or two names of one file.
func (e *espAfter) oddity() string {
	names, err := e.names()
	if err != nil {
		return ""
	}
	seen := map[string]bool{}
	for _, name := range names {
		if chain, err := e.ask("mshowfat", "::EFI/Linux/"+name); err == nil {
			if _, chain, _ := strings.Cut(chain, " "); strings.Contains(chain, "<") && seen[chain] {
				return "two names of one file"
			} else {
				seen[chain] = true
			}
		}
	}
	if out, _ := exec.Command("fsck.vfat", "-n", e.path()).CombinedOutput(); cutChain.Match(out) {
		return "a chain that ends in nothing"
	}
	return ""
}

// cutDisk is a disk after a power cut.
type cutDisk struct {
	esp   string // the partition
	after int    // writes of the whole log
}

// small bounds a write of FAT's own tables: what is larger is contents.
const small = 64 << 10

// cuts applies a log to the partition, flush by flush, and has each state looked at that a power cut may leave: every write as the last
// one; and every small one alone, or alone missing, of those since the last flush.
func (e *espAfter) cuts(t *testing.T, log []written, look func(w written, what string)) {
	t.Helper()
	apply := func(epoch []written, but int, each func(w written)) (undo []written) {
		for i, w := range epoch {
			if i != but {
				undo = append(undo, w.put(t, e.file))
				each(w)
			}
		}
		slices.Reverse(undo)
		return undo
	}
	nobody := func(written) {}
	for len(log) > 0 {
		end := slices.IndexFunc(log, func(w written) bool { return w.barrier }) + 1
		if end == 0 {
			end = len(log)
		}
		epoch := log[:end]
		log = log[end:]
		undo := apply(epoch, -1, func(w written) { look(w, "is the last one") })
		if len(epoch) > 2 {
			apply(undo, -1, nobody)
			for i, w := range epoch {
				if len(w.data) == 0 || len(w.data) > small {
					continue
				}
				alone := w.put(t, e.file)
				look(w, "is the only one since the last flush")
				alone.put(t, e.file)
				rest := apply(epoch, i, nobody)
				look(w, "is missing at the next flush")
				apply(rest, -1, nobody)
			}
			apply(epoch, -1, nobody)
		}
	}
}

// newCutESP is the partition of a disk that nothing was written to yet.
func newCutESP(t *testing.T, disk *Disk, first string, whole map[string]string) *espAfter {
	t.Helper()
	at, size := disk.Partition(t, ESP)
	path := filepath.Join(t.TempDir(), "esp")
	run(t, nil, "dd", "status=none", "conv=sparse", "bs=1M", "iflag=skip_bytes,count_bytes", fmt.Sprintf("skip=%d", at), fmt.Sprintf("count=%d", size), "if="+disk.Path, "of="+path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	e := &espAfter{file: f, first: first, whole: whole}
	names, err := e.names()
	if err != nil || len(names) != 1 {
		t.Fatalf("there are %q: %v", names, err)
	}
	if e.chain, err = e.ask("mshowfat", "::EFI/Linux/"+names[0]); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestAPowerCutAtEveryWriteOfAnInstall logs what the kernel's FAT writes during an install, and looks at every disk that a power cut may
// leave of it. Those at which a kernel could stumble boot then, and take the next update.
func TestAPowerCutAtEveryWriteOfAnInstall(t *testing.T) {
	u := newUpdated(t)
	base := &Disk{filepath.Join(t.TempDir(), "base.raw")}
	run(t, nil, "cp", "--sparse=always", u.options.Disk.Path, base.Path)
	u.options.Log = write(t, filepath.Join(t.TempDir(), "writes"), nil)
	u.begin(t)
	u.Run(t, "sluice image install "+u.publish(t, variant{version: "1.1"})+" && sync")
	u.Cut()
	all := writes(t, u.options.Log)
	sum := sha256.Sum256(read(t, filepath.Join(u.dir, "sluice_1.1.efi")))

	first, size := base.Partition(t, ESP)
	log := within(all, first, size)
	esp := newCutESP(t, base, u.first, map[string]string{"1.1": fmt.Sprintf("%x", sum)})
	states := 0
	odd := map[string]cutDisk{}
	esp.cuts(t, log, func(w written, what string) {
		states++
		if err := esp.bootable(); err != nil {
			t.Errorf("write %d of %d %s: %v", w.number, len(all), what, err)
		}
		if o := esp.oddity(); o != "" && odd[o].esp == "" {
			t.Logf("write %d of %d %s: %s", w.number, len(all), what, o)
			odd[o] = cutDisk{esp: filepath.Join(t.TempDir(), "odd"), after: w.number}
			run(t, nil, "cp", "--sparse=always", esp.path(), odd[o].esp)
		}
	})
	t.Logf("%d writes, %d of them to the partition, %d disks, %d of them with an empty image", len(all), len(log), states, esp.empty)
	if names, err := esp.names(); err != nil || !slices.Contains(names, "sluice_1.1+3.efi") || len(names) != 2 || states < 50 {
		t.Fatalf("in the end there are %q: not all was tried (%v)", names, err)
	}
	// It can say no.
	esp.whole["1.1"] = "of another file"
	if err := esp.bootable(); err == nil {
		t.Error("an image that is not whole passes")
	}
	if _, err := esp.ask("mdel", "::EFI/Linux/sluice_"+u.first+".efi"); err != nil || esp.bootable() == nil {
		t.Errorf("a disk without the version that runs passes (%v)", err)
	}
	u.options.Log = ""
	for o, c := range odd {
		t.Run(o, func(t *testing.T) { u.goesOn(t, base, all[:c.after+1], c.esp) })
	}
}

// goesOn boots what a power cut left, and updates it.
func (u *updated) goesOn(t *testing.T, base *Disk, all []written, esp string) {
	disk := &Disk{filepath.Join(t.TempDir(), "disk.raw")}
	run(t, nil, "cp", "--sparse=always", base.Path, disk.Path)
	f, err := os.OpenFile(disk.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, w := range all {
		w.put(t, f)
	}
	at, _ := base.Partition(t, ESP)
	run(t, nil, "dd", "status=none", "bs=1M", "conv=notrunc", "oflag=seek_bytes", fmt.Sprintf("seek=%d", at), "if="+esp, "of="+disk.Path)
	u.options.Disk = disk
	u.on(t)
	u.becomes(t, "decided", func(s slots.Status) bool { return s.Running != "" && !s.Trial })
	u.ready(t)
	t.Logf("%s\n%s", u.Run(t, "sluice image status"), u.Run(t, "ls -l /efi/EFI/Linux; df /efi"))
	u.Run(t, "sluice image install "+u.publish(t, variant{version: "1.2"})+"; dmesg | grep -i fat >&2; grep efi /proc/mounts >&2")
	u.PowerOff(t)
	u.on(t)
	u.becomes(t, "updated", func(s slots.Status) bool { return s.Running == "1.2" && !s.Trial })
	t.Logf("%s", u.Run(t, "sluice image status"))
	u.PowerOff(t)
}
