package ban

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"sluice/control/disk"
)

// schema grows when an older version would misread the file. disk.Format grows with it.
const schema = 1

// ErrNewerSchema says that a newer sluice wrote the file; it is left alone.
var ErrNewerSchema = errors.New("written by a newer sluice")

// record is a ban in the file. The end is on the wall clock: it alone goes on through a reboot.
type record struct {
	Target netip.Prefix `json:"target"`
	Since  time.Time    `json:"since"`
	Until  time.Time    `json:"until,omitzero"` // zero: until it is lifted
	// For is what was asked. A ban never lasts longer from here on, however wrong the clock was.
	For time.Duration `json:"for_ns,omitempty"`
	Why string        `json:"why,omitempty"`
	By  string        `json:"by,omitempty"`
}

// readFile returns nil where there is no file.
func readFile(path string) ([]record, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var file struct {
		Schema int      `json:"schema"`
		Bans   []record `json:"bans"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("%s: %w: move it away to go on without the bans in it", path, err)
	}
	if file.Schema > schema {
		return nil, fmt.Errorf("%s: %w (schema %d, this one knows %d)", path, ErrNewerSchema, file.Schema, schema)
	}
	for _, r := range file.Bans {
		if !isTarget(r.Target) {
			return nil, fmt.Errorf("%s: %q is no target of a ban: move the file away to go on without the bans in it", path, r.Target)
		}
	}
	return file.Bans, nil
}

// isTarget says whether ParseTarget could have made p.
func isTarget(p netip.Prefix) bool {
	return p.IsValid() && p == p.Masked() && p.Bits() > 0 && !p.Addr().Is4In6()
}

// writeFile replaces the file. One ban a line.
func writeFile(path string, bans []record) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "{\"schema\": %d, \"bans\": [", schema)
	for i, r := range bans {
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteByte('\n')
		out.Write(line)
	}
	out.WriteString("\n]}\n")
	return disk.Replace(path, out.Bytes())
}
