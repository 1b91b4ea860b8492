package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/api"
	"sluice/control/node/slots"
)

// imageNode is a node image whose two slots are files of a directory: 1.1 runs.
type imageNode struct {
	options  slots.Options
	rebooted int
}

func newImageNode(t *testing.T, files ...string) *imageNode {
	t.Helper()
	dir := t.TempDir()
	n := &imageNode{options: slots.Options{ESP: filepath.Join(dir, "efi"), EFIVars: filepath.Join(dir, "efivars"), OSRelease: filepath.Join(dir, "os-release"),
		Keys: []string{filepath.Join(dir, "*.pub")}, Notes: filepath.Join(dir, "image"), Arch: "amd64", MaxBytes: 1 << 20}}
	linux := filepath.Join(n.options.ESP, "EFI", "Linux")
	if err := errors.Join(os.MkdirAll(linux, 0o700), os.Mkdir(n.options.EFIVars, 0o700),
		writeFile(n.options.OSRelease, "IMAGE_ID=sluice\nIMAGE_VERSION=1.1\n")); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := writeFile(filepath.Join(linux, f), "kernel"); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n *imageNode) sluice(t *testing.T, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	c := newCLI(&out, &errs)
	c.now, c.slots = sluiceNow, func(string) slots.Options { return n.options }
	c.reboot = func(context.Context) error { n.rebooted++; return nil }
	code := c.run(t.Context(), args)
	return outcome{code, out.String(), errs.String()}
}

func TestTheVersionSaysWhichImageItIsIn(t *testing.T) {
	n := newImageNode(t)
	n.sluice(t, "version").is(t, done(version+" (image 1.1)\n"))
	n.sluice(t, "version", "-o", "json").is(t, done("{\n  \"image\": \"1.1\",\n  \"version\": \""+version+"\"\n}\n"))
}

func TestImageStatus(t *testing.T) {
	n := newImageNode(t, "sluice_1.1.efi", "sluice_1.2+0-3.efi")
	n.sluice(t, "image", "status").is(t, done(`running  1.1
reboot   1.1

VERSION  STATE   TRIES LEFT  RUNS  REBOOT  SIZE  FILE
1.1      good    -           yes   yes     6 B   sluice_1.1.efi
1.2      failed  0           no    no      6 B   sluice_1.2+0-3.efi

1.2: it left no word: it did not come as far as its health gate (a panic, a hang, a power cut)
`))
	var s slots.Status
	got := n.sluice(t, "image", "status", "-o", "json")
	if err := json.Unmarshal([]byte(got.out), &s); err != nil || s.Running != "1.1" || len(s.Slots) != 2 || s.Slots[1].State != slots.Failed {
		t.Errorf("%+v %v", got, err)
	}
}

func TestImageRollbackAndPromote(t *testing.T) {
	n := newImageNode(t, "sluice_1.1.efi", "sluice_1.0.efi")
	n.sluice(t, "image", "rollback").is(t, done("the next boots start version 1.0; 1.1 runs\n"))
	n.sluice(t, "image", "promote").is(t, done("the next boots start version 1.1; 1.1 runs\n"))
	if n.rebooted != 0 {
		t.Error("it rebooted")
	}
	if got := n.sluice(t, "image", "rollback", "--reboot"); got.code != exitDone || n.rebooted != 1 {
		t.Errorf("%+v, %d reboots", got, n.rebooted)
	}
}

func TestImageKeysAndSignatures(t *testing.T) {
	n := newImageNode(t, "sluice_1.1.efi")
	key := filepath.Join(t.TempDir(), "release.key")
	file := write(t, "sluice_1.2.efi", "no UKI at all")
	if got := n.sluice(t, "image", "keygen", key); got.code != exitDone || !strings.HasPrefix(got.out, key+" "+key+".pub "+key+".uefi.key "+key+".uefi.crt: key ") {
		t.Errorf("%+v", got)
	}
	if got := n.sluice(t, "image", "keygen", key); got.code != exitNo || !strings.Contains(got.err, "file exists") {
		t.Errorf("%+v", got)
	}
	if got := n.sluice(t, "image", "sign", file); got.code != exitUsage {
		t.Errorf("%+v", got)
	}
	if got := n.sluice(t, "image", "sign", "--key", key, file); got.code != exitDone || !strings.HasPrefix(got.out, file+".sig: by key ") {
		t.Errorf("%+v", got)
	}
	// A node trusts no key that it was not given.
	if got := n.sluice(t, "image", "install", file); got.code != exitNo || !strings.Contains(got.err, "this node has no key") {
		t.Errorf("%+v", got)
	}
	if err := os.Rename(key+".pub", filepath.Join(filepath.Dir(n.options.OSRelease), "image.pub")); err != nil {
		t.Fatal(err)
	}
	if got := n.sluice(t, "image", "install", file, "--reboot"); got.code != exitNo || !strings.Contains(got.err, "it is no unified kernel image") || n.rebooted != 0 {
		t.Errorf("%+v", got)
	}
}

// A binary that was installed by a package says so, whatever is asked.
func TestImagesOnAnotherSystem(t *testing.T) {
	n := newImageNode(t)
	if err := writeFile(n.options.OSRelease, "ID=debian\n"); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"image status", "image install x.efi", "image rollback", "image promote", "node gate"} {
		if got := n.sluice(t, strings.Fields(args)...); got.code != exitNo || !strings.Contains(got.err, "this machine does not run Sluice's node image") {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestTheGateRecordsWhatTheDaemonSays(t *testing.T) {
	n := newImageNode(t, "sluice_1.1.efi")
	daemonOf(t, &box{shown: api.Status{}, fail: errors.New("not now")})
	if got := n.sluice(t, "node", "gate", "--record"); got.code != exitNo || !strings.Contains(got.err, "not now") {
		t.Errorf("%+v", got)
	}
	// This boot is no try, so nothing is asked.
	if got := n.sluice(t, "node", "gate"); got.code != exitDone {
		t.Errorf("%+v", got)
	}
}
