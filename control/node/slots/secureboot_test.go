package slots

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"
)

// certified appends attribute certificates to a PE file, as signing tools do.
func certified(file, signature []byte) []byte {
	out := bytes.Clone(file)
	// The directory entry: behind the signature "PE", the file header and the optional header's 112 bytes, the fifth of eight bytes each.
	entry := out[0x40+4+20+112+4*8:]
	binary.LittleEndian.PutUint32(entry, uint32(len(out)))
	binary.LittleEndian.PutUint32(entry[4:], uint32(len(signature)))
	return append(out, signature...)
}

// database is an EFI signature database of lists, each of one entry.
func database(entries ...[]byte) []byte {
	var out []byte
	for _, e := range entries {
		out = append(out, certX509...)
		for _, n := range []int{28 + 16 + len(e), 0, 16 + len(e)} {
			out = binary.LittleEndian.AppendUint32(out, uint32(n))
		}
		out = append(append(out, make([]byte, 16)...), e...)
	}
	return out
}

func TestUnderSecureBootAnImageIsOneThatTheFirmwareStarts(t *testing.T) {
	_, ours, err := firmwareKey()
	if err != nil {
		t.Fatal(err)
	}
	_, theirs, err := firmwareKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		signature []byte
		on        byte
		db        []byte
		want      string
	}{
		{"off", nil, 0, nil, ""},
		{"not signed", nil, 1, database(ours), "not signed for Secure Boot"},
		{"signed by a stranger", theirs, 1, database(ours), "no certificate of this machine's firmware"},
		{"no certificates", ours, 1, nil, "no certificate of this machine's firmware"},
		{"a database cut off", ours, 1, database(ours)[:40], "no certificate of this machine's firmware"},
		{"ours", append([]byte("PKCS"), ours...), 1, database(theirs, ours), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, "1.1", "sluice_1.1.efi")
			n.write(t, n.path("efivars", "SecureBoot-"+globalGUID), []byte{6, 0, 0, 0, c.on})
			n.write(t, n.path("efivars", "db-"+securityGUID), append([]byte{7, 0, 0, 0}, c.db...))
			_, err := n.Install(t.Context(), n.signed(t, certified(image("1.2"), c.signature)), InstallOptions{})
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "nothing was written") || len(n.files(t)) != 1 {
				t.Errorf("%v, %q", err, n.files(t))
			}
		})
	}
}

func TestASignatureThatIsCutOff(t *testing.T) {
	n := newNode(t, "1.1", "sluice_1.1.efi")
	n.write(t, n.path("efivars", "SecureBoot-"+globalGUID), []byte{6, 0, 0, 0, 1})
	whole := certified(image("1.2"), make([]byte, 100))
	_, err := n.Install(t.Context(), n.signed(t, whole[:len(whole)-1]), InstallOptions{})
	if err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Error(err)
	}
}

func TestGenerateKeyLeavesNoHalfOfASet(t *testing.T) {
	file := t.TempDir() + "/release.key"
	if err := os.WriteFile(file+".uefi.crt", []byte("an older one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := GenerateKey(file); err == nil {
		t.Fatal("it was overwritten")
	}
	if entries, err := os.ReadDir(file[:len(file)-len("/release.key")]); err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
}
