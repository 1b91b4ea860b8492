package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestGenerateWritesAKeyThatWgUnderstands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "fra1.key")
	pub, err := Generate(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("wg", "pubkey")
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("wg pubkey (package wireguard-tools): %v", err)
	}
	if got := strings.TrimSpace(string(out)); got != pub {
		t.Errorf("wg derives %s, Generate returned %s", got, pub)
	}
	if got, err := PublicKey(path); err != nil || got != pub {
		t.Errorf("PublicKey = %s, %v; want %s", got, err, pub)
	}
	raw, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if raw[0]&7 != 0 || raw[31]&0xc0 != 0x40 {
		t.Error("the stored key is not clamped")
	}
	wantMode(t, path, 0o600)
	wantMode(t, filepath.Dir(path), 0o700)
	wantMode(t, filepath.Dir(filepath.Dir(path)), 0o700)
	wantFiles(t, filepath.Dir(path), "fra1.key")
}

func TestGeneratePSKWritesAKeyThatLoads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fra1.psk")
	if err := GeneratePSK(path); err != nil {
		t.Fatal(err)
	}
	k, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if k.Bytes() == [Size]byte{} {
		t.Error("the preshared key is all zeros")
	}
	wantMode(t, path, 0o600)
}

func TestAKeyFileIsNeverOverwritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "k")
	dangling := filepath.Join(dir, "dangling")
	if _, err := Generate(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	for _, p := range []string{path, dangling} {
		if _, err := Generate(p); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), p) {
			t.Errorf("Generate over %s: %v", p, err)
		}
		if err := GeneratePSK(p); !errors.Is(err, ErrExists) {
			t.Errorf("GeneratePSK over %s: %v", p, err)
		}
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the key file changed")
	}
	wantFiles(t, dir, "dangling", "k")
}

func TestOfManyWritersOneWinsAndItsKeyStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	var mu sync.Mutex
	var won []string
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			pub, err := Generate(path)
			if err != nil && !errors.Is(err, ErrExists) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				won = append(won, pub)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	pub, err := PublicKey(path)
	if err != nil || len(won) != 1 || won[0] != pub {
		t.Errorf("winners %v, on disk %s, %v", won, pub, err)
	}
}

func TestLoadRefusesFilesThatOthersMayRead(t *testing.T) {
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o660} {
		path := filepath.Join(t.TempDir(), "k")
		if _, err := Generate(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if !errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %04o: %v", mode, err)
		}
		link := path + ".link"
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(link); !errors.Is(err, ErrExposed) {
			t.Errorf("link to mode %04o: %v", mode, err)
		}
	}
}

func TestLoadFollowsALinkToAClosedFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Generate(filepath.Join(dir, "k")); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o600, 0o400} {
		os.Chmod(filepath.Join(dir, "k"), mode)
		os.Remove(filepath.Join(dir, "l"))
		if err := os.Symlink("k", filepath.Join(dir, "l")); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(filepath.Join(dir, "l")); err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestLoadSaysWhatIsWrongAndNeverEchoesTheFile(t *testing.T) {
	good := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xa7}, Size))
	cases := map[string]struct{ content, says string }{
		"empty":        {"", "empty"},
		"white space":  {" \n\t", "empty"},
		"not base64":   {"hunter2-hunter2-!!", "not base64"},
		"31 bytes":     {base64.StdEncoding.EncodeToString(make([]byte, 31)), "31 bytes"},
		"33 bytes":     {base64.StdEncoding.EncodeToString(make([]byte, 33)), "33 bytes"},
		"url alphabet": {strings.Repeat("_", 43) + "=", "not base64"},
		"two keys":     {good + "\n" + good, "64 bytes|not base64"},
		"a whole book": {strings.Repeat("A", 10000), "too long"},
		"wg config":    {"PrivateKey = " + good, "not base64"},
	}
	for name, c := range cases {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		says := false
		for _, s := range strings.Split(c.says, "|") {
			says = says || strings.Contains(err.Error(), s)
		}
		if !says || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q does not say %q and the path", name, err, c.says)
		}
		if content := strings.TrimSpace(c.content); content != "" && strings.Contains(err.Error(), content[:6]) {
			t.Errorf("%s: the error echoes the file: %v", name, err)
		}
	}
}

func TestLoadOfNothingAndOfADirectory(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "sluice key gen") {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Load(dir); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "directory") {
		t.Errorf("a directory: %v", err)
	}
}

func TestAPipeIsRefusedAndNeverWaitedFor(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(pipe); !errors.Is(err, ErrMalformed) {
		t.Errorf("a pipe: %v", err)
	}
}

func TestAKeyIsNeverPrinted(t *testing.T) {
	secret := [Size]byte{}
	for i := range secret {
		secret[i] = byte(0xa0 + i)
	}
	k := newKey(secret)
	type nested struct {
		inner Key
		Outer *Key
	}
	values := map[string]any{"key": k, "pointer": &k, "nested": nested{k, &k}, "slice": []Key{k}, "map": map[string]Key{"k": k}}
	var said []string
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%t"} {
			said = append(said, fmt.Sprintf(name+" "+verb+" "+verb, v, v))
		}
		said = append(said, fmt.Sprint(v), fmt.Errorf("%w %v", fs.ErrExist, v).Error())
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "k", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", slog.Any("k", v))
		said = append(said, string(out), log.String())
	}
	text, _ := k.MarshalText()
	said = append(said, string(text), k.String(), k.GoString(), k.LogValue().String())
	// Four bytes in a row of the secret, in the forms in which a leak would show.
	part := secret[8:12]
	leaks := []string{
		base64.StdEncoding.EncodeToString(secret[:])[:8],
		hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
		fmt.Sprint(part[0], part[1], part[2]), fmt.Sprintf("% x", part), fmt.Sprintf("%d,%d", part[0], part[1]),
		fmt.Sprintf("%#x, %#x", part[0], part[1]), string(part), fmt.Sprintf("%o %o", part[0], part[1]),
	}
	for _, s := range said {
		for _, leak := range leaks {
			if strings.Contains(s, leak) {
				t.Errorf("%q shows %q of the secret", s, leak)
			}
		}
	}
	if got := fmt.Sprintf("%v", k); got != "[secret]" {
		t.Errorf("%%v = %q", got)
	}
}

func TestTheZeroKeyHoldsNothing(t *testing.T) {
	var k Key
	if k.Bytes() != [Size]byte{} {
		t.Error("bytes")
	}
	if _, err := k.PublicKey(); err == nil {
		t.Error("it has a public key")
	}
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != want {
		t.Errorf("%s has mode %04o, want %04o", path, got, want)
	}
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s holds %v, want %v", dir, got, want)
	}
}
