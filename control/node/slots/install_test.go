package slots

import (
	"bytes"
	"debug/pe"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// standing is the ESP of most tests: 1.1 runs, 1.0 is the other.
func standing(t *testing.T) *node {
	return newNode(t, "1.1", "sluice_1.0.efi", "sluice_1.1.efi")
}

func TestInstallReplacesTheSlotThatDoesNotRun(t *testing.T) {
	n := standing(t)
	n.write(t, n.esp("debian.efi"), []byte("of somebody else"))
	n.setVar(t, varDefault, "sluice_1.1.efi") // would win over the update
	in, err := n.Install(t.Context(), n.release(t, "1.2"), InstallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if in.Version != "1.2" || in.Next != "1.2" || in.Running != "1.1" || !slices.Equal(in.Replaced, []string{"1.0"}) || in.Tries != 3 || in.Key == "" {
		t.Errorf("%+v", in)
	}
	if got, want := n.files(t), []string{"debian.efi", "sluice_1.1.efi", "sluice_1.2+3.efi"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	if data, err := os.ReadFile(n.esp("sluice_1.2+3.efi")); err != nil || !bytes.Equal(data, image("1.2")) {
		t.Errorf("the copy has %d bytes, %v", len(data), err)
	}
	// Another one before it was tried replaces it, and the one that runs stays.
	if _, err := n.Install(t.Context(), n.release(t, "1.3"), InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := n.files(t), []string{"debian.efi", "sluice_1.1.efi", "sluice_1.3+3.efi"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
}

func TestADowngradeIsTriedOnceAndStaysWhereItPasses(t *testing.T) {
	n := standing(t)
	in, err := n.Install(t.Context(), n.release(t, "0.9"), InstallOptions{Downgrade: true})
	if err != nil || in.Next != "0.9" {
		t.Fatalf("%+v %v", in, err)
	}
	if once, err := n.efi.get(varOneshot); once != "sluice_0.9.efi" || err != nil {
		t.Errorf("the loader is told to start %q (%v)", once, err)
	}
	// The loader takes the variable away. A try that fails leads back.
	if err := n.efi.unset(varOneshot); err != nil {
		t.Fatal(err)
	}
	n.try(t, "sluice_0.9+3.efi")
	if s, err := n.Status(); err != nil || s.Next != "1.1" || !s.Trial {
		t.Errorf("%+v %v", s, err)
	}
	if err := n.Keep(); err != nil {
		t.Fatal(err)
	}
	if s, err := n.Status(); err != nil || s.Next != "0.9" {
		t.Errorf("%+v %v", s, err)
	}
	if got, want := n.files(t), []string{"sluice_0.9+2-1.efi", "sluice_1.1+0.efi"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
}

// Whatever is refused is refused before anything is written.
func TestRefusals(t *testing.T) {
	amd64 := uint16(pe.IMAGE_FILE_MACHINE_AMD64)
	osrel := func(text string) [2]string { return [2]string{".osrel", text} }
	linux := [2]string{".linux", "kernel"}
	for _, c := range []struct {
		name string
		file func(t *testing.T, n *node) string
		o    InstallOptions
		want string
	}{
		{"older", func(t *testing.T, n *node) string { return n.release(t, "1.0.5") }, InstallOptions{}, "which is older than 1.1, which runs here: --downgrade takes it"},
		{"the same", func(t *testing.T, n *node) string { return n.release(t, "1.1") }, InstallOptions{Downgrade: true}, "it is version 1.1, which runs here"},
		{"the same, written otherwise", func(t *testing.T, n *node) string { return n.release(t, "1.01") }, InstallOptions{Downgrade: true}, "which runs here"},
		{"the same for FAT", func(t *testing.T, n *node) string { n.boot(t, "1.1-rc"); return n.release(t, "1.1-RC") }, InstallOptions{Downgrade: true}, "which runs here"},
		{"tampered", func(t *testing.T, n *node) string {
			return spoil(t, n.release(t, "1.2"), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}, InstallOptions{}, "its signature does not fit"},
		{"truncated", func(t *testing.T, n *node) string {
			return spoil(t, n.release(t, "1.2"), func(b []byte) []byte { return b[:len(b)-1] })
		}, InstallOptions{}, "its signature does not fit"},
		{"longer", func(t *testing.T, n *node) string {
			return spoil(t, n.release(t, "1.2"), func(b []byte) []byte { return append(b, 0) })
		}, InstallOptions{}, "its signature does not fit"},
		{"unsigned", func(t *testing.T, n *node) string {
			f := n.release(t, "1.2")
			if err := os.Remove(f + ".sig"); err != nil {
				t.Fatal(err)
			}
			return f
		}, InstallOptions{}, ".sig: not signed; nothing was written"},
		{"unsigned, and said so, on a node with keys", func(t *testing.T, n *node) string { return n.release(t, "1.2") }, InstallOptions{Unsigned: true}, "--unsigned is refused"},
		{"a stranger's", func(t *testing.T, n *node) string {
			f := n.release(t, "1.2")
			if _, err := GenerateKey(n.path("stranger")); err != nil {
				t.Fatal(err)
			}
			if _, err := Sign(n.path("stranger"), f); err != nil {
				t.Fatal(err)
			}
			return f
		}, InstallOptions{}, "which this machine does not trust"},
		{"a torn signature", func(t *testing.T, n *node) string {
			f := n.release(t, "1.2")
			n.write(t, f+".sig", []byte("ed25519ph\n"))
			return f
		}, InstallOptions{}, "its signature is not understood"},
		{"no key here", func(t *testing.T, n *node) string {
			f := n.release(t, "1.2")
			if err := os.Remove(n.path("keys", "image.pub")); err != nil {
				t.Fatal(err)
			}
			return f
		}, InstallOptions{}, "this node has no key to check an image with"},
		{"no UKI", func(t *testing.T, n *node) string { return n.signed(t, []byte("hello, I am a text")) }, InstallOptions{}, "it is no unified kernel image"},
		{"a PE file", func(t *testing.T, n *node) string { return n.signed(t, efiImage(amd64, [2]string{".text", "x"})) }, InstallOptions{}, "it lacks the section .osrel"},
		{"of another architecture", func(t *testing.T, n *node) string {
			return n.signed(t, efiImage(pe.IMAGE_FILE_MACHINE_ARM64, osrel("IMAGE_ID=sluice\nIMAGE_VERSION=1.2\n"), linux))
		}, InstallOptions{}, "another architecture (PE machine 0xaa64)"},
		{"of another system", func(t *testing.T, n *node) string {
			return n.signed(t, efiImage(amd64, osrel("ID=debian\nIMAGE_ID=other\nIMAGE_VERSION=1.2\n"), linux))
		}, InstallOptions{}, `its IMAGE_ID is "other"`},
		{"with a version that is a path", func(t *testing.T, n *node) string {
			return n.signed(t, efiImage(amd64, osrel("IMAGE_ID=sluice\nIMAGE_VERSION=../../1.2\n"), linux))
		}, InstallOptions{}, "is no version"},
		{"not there", func(*testing.T, *node) string { return "/nonexistent.efi" }, InstallOptions{}, "no such file"},
		{"a directory", func(t *testing.T, _ *node) string { return t.TempDir() }, InstallOptions{}, "is no file"},
		{"by another way", func(*testing.T, *node) string { return "ftp://user:secret@192.0.2.1/x.efi" }, InstallOptions{}, "ftp://user:xxxxx@192.0.2.1/x.efi: images come by https or http, or as a file"},
		{"by a way that nobody understands", func(*testing.T, *node) string { return "https://user:secret@192.0.2.1:port/x.efi" }, InstallOptions{}, "the image's URL is not understood"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := standing(t)
			file := c.file(t, n)
			_, err := n.Install(t.Context(), file, c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v; want %q", err, c.want)
			}
			if got, want := n.files(t), []string{"sluice_1.0.efi", "sluice_1.1.efi"}; !slices.Equal(got, want) {
				t.Errorf("there are %q, want %q", got, want)
			}
		})
	}
}

// While the version that runs is not proven, the other one is all that there is to go back to.
func TestNoUpdateReplacesTheOnlyProvenVersion(t *testing.T) {
	n := newNode(t, "1.1", "sluice_1.1.efi", "sluice_1.2+3.efi")
	n.try(t, "sluice_1.2+3.efi")
	if _, err := n.Install(t.Context(), n.release(t, "1.3"), InstallOptions{}); err == nil || !strings.Contains(err.Error(), "1.2 runs on trial") {
		t.Error(err)
	}
	n = standing(t)
	if _, err := n.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Install(t.Context(), n.release(t, "1.3"), InstallOptions{}); err == nil || !strings.Contains(err.Error(), "1.1 was put aside by a rollback") {
		t.Error(err)
	}
	if got, want := n.files(t), []string{"sluice_1.0.efi", "sluice_1.1+0.efi"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
}

// A medium may give one file to whoever checks it and another to whoever copies it: what lies on the disk decides.
func TestWhatIsWrittenIsWhatWasVerified(t *testing.T) {
	n := standing(t)
	l, err := n.look()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		shown, copied, want string
	}{
		{"1.2", "1.3", "the file was changed while it was copied"}, // by its digest
		{"1.0", "1.0", "it is not of version 1.2"},                 // by its name
	} {
		first, err := obtain(t.Context(), n.release(t, c.shown), source{dir: n.opts.Notes, most: n.opts.MaxBytes})
		if err != nil {
			t.Fatal(err)
		}
		defer first.close()
		second, err := obtain(t.Context(), n.release(t, c.copied), source{dir: n.opts.Notes, most: n.opts.MaxBytes})
		if err != nil {
			t.Fatal(err)
		}
		defer second.close()
		second.digest = first.digest
		if _, err := n.place(t.Context(), l, second, Name{Version: "1.2", Counted: true, Left: 3}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		if got, want := n.files(t), []string{"sluice_1.0.efi", "sluice_1.1.efi"}; !slices.Equal(got, want) {
			t.Errorf("there are %q, want %q", got, want)
		}
	}
}

func spoil(t *testing.T, path string, change func([]byte) []byte) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestANodeWithoutAKeyTakesWhatItIsToldTo(t *testing.T) {
	n := standing(t)
	if err := os.Remove(n.path("keys", "image.pub")); err != nil {
		t.Fatal(err)
	}
	if in, err := n.Install(t.Context(), n.release(t, "1.2"), InstallOptions{Unsigned: true}); err != nil || in.Key != "" || in.Next != "1.2" {
		t.Errorf("%+v %v", in, err)
	}
}

func TestAFullESPIsLeftAsItIs(t *testing.T) {
	n := standing(t)
	m := newMemory(int64(len(image("1.1")))*2, map[string][]byte{"sluice_1.1.efi": image("1.1"), "sluice_1.0.efi": image("1.0")})
	n.Machine.esp = m
	if _, err := n.Install(t.Context(), n.release(t, "1.2"), InstallOptions{}); err == nil || !strings.Contains(err.Error(), "has no room") {
		t.Error(err)
	}
	if len(m.now) != 2 || len(m.pending) > 0 {
		t.Errorf("it was written: %v", m.now)
	}
}

func TestAMissingESPAndAnotherSystem(t *testing.T) {
	n := standing(t)
	o := n.options()
	o.ESP = n.path("elsewhere")
	if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "no EFI system partition with EFI/Linux at "+o.ESP) {
		t.Error(err)
	}
	n.write(t, n.path("os-release"), []byte("ID=debian\nVERSION_ID=\"12\"\n"))
	if _, err := Open(n.options()); !errors.Is(err, ErrNoImage) {
		t.Error(err)
	}
	o = n.options()
	o.OSRelease = n.path("nowhere")
	if _, err := Open(o); !errors.Is(err, ErrNoImage) {
		t.Error(err)
	}
}

// A node that was started from elsewhere keeps what its disk would boot.
func TestAnInstallOnANodeThatRunsFromTheNetworkKeepsWhatTheDiskBoots(t *testing.T) {
	n := newNode(t, "1.3", "sluice_1.0.efi", "sluice_1.1.efi")
	if _, err := n.Install(t.Context(), n.release(t, "1.4"), InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := n.files(t), []string{"sluice_1.1.efi", "sluice_1.4+3.efi"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	// What is staged is not what it keeps: the proven one stays, however often an update is staged.
	if _, err := n.Install(t.Context(), n.release(t, "1.5"), InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := n.files(t), []string{"sluice_1.1.efi", "sluice_1.5+3.efi"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	if _, err := n.Promote(); err == nil || !strings.Contains(err.Error(), "was not started from this node's disk") {
		t.Error(err)
	}
}

func TestKeysAreNeverOverwritten(t *testing.T) {
	n := standing(t)
	before, err := os.ReadFile(n.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := GenerateKey(n.key); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if after, err := os.ReadFile(n.key); err != nil || !bytes.Equal(before, after) {
		t.Error("the key is another", err)
	}
	if info, err := os.Stat(n.key); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	n.write(t, n.path("keys", "image.pub"), []byte("nothing"))
	if _, err := n.Install(t.Context(), n.release(t, "1.2"), InstallOptions{}); err == nil || !strings.Contains(err.Error(), "PEM") {
		t.Error(err)
	}
}
