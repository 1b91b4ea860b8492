package slots

import (
	"bufio"
	"bytes"
	"debug/pe"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// imageID is what an os-release of the node image has as IMAGE_ID.
const imageID = "sluice"

// machines are the PE machine types of the architectures, by GOARCH.
var machines = map[string]uint16{"amd64": pe.IMAGE_FILE_MACHINE_AMD64, "arm64": pe.IMAGE_FILE_MACHINE_ARM64}

// maxOSRelease bounds the section: it is a page of text.
const maxOSRelease = 64 << 10

// readUKI returns the version of a UKI of Sluice for an architecture.
func readUKI(r io.ReaderAt, arch string) (version string, err error) {
	f, err := pe.NewFile(r)
	if err != nil {
		return "", fmt.Errorf("it is no unified kernel image: %w", err)
	}
	if f.Machine != machines[arch] {
		return "", fmt.Errorf("it is for another architecture (PE machine 0x%04x), and this machine is %s", f.Machine, arch)
	}
	release := f.Section(".osrel")
	if release == nil || f.Section(".linux") == nil {
		return "", fmt.Errorf("it is no unified kernel image: it lacks the section .osrel or .linux")
	}
	if release.Size > maxOSRelease {
		return "", fmt.Errorf("its section .osrel has %d bytes, which is no os-release", release.Size)
	}
	text, err := release.Data()
	if err != nil {
		return "", fmt.Errorf("its section .osrel cannot be read: %w", err)
	}
	fields := osRelease(text)
	if fields["IMAGE_ID"] != imageID {
		return "", fmt.Errorf("it is no image of Sluice: its IMAGE_ID is %q", fields["IMAGE_ID"])
	}
	if version = fields["IMAGE_VERSION"]; !versionText.MatchString(version) {
		return "", fmt.Errorf("its IMAGE_VERSION %q is no version: letters, digits and . ~ ^ - are", version)
	}
	return version, nil
}

// osRelease reads os-release(5), of which no value here has an escape.
func osRelease(text []byte) map[string]string {
	out := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(bytes.TrimRight(text, "\x00"))) // sections are padded with zeros
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		if plain, err := strconv.Unquote(value); err == nil {
			value = plain
		}
		out[key] = strings.Trim(value, "'")
	}
	return out
}

// Runs is the version of the image that this machine runs by its os-release, "" where it is another system.
func Runs(osReleaseFile string) (string, error) {
	text, err := os.ReadFile(osReleaseFile)
	if err != nil {
		return "", err
	}
	fields := osRelease(text)
	if fields["IMAGE_ID"] != imageID {
		return "", nil
	}
	return fields["IMAGE_VERSION"], nil
}
