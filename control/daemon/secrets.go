package daemon

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"sluice/control/config"
	"sluice/crypto/keys"
)

// secretFiles are all files that may hold a secret of this machine: what the configuration names, what the file and the stored
// revisions name even where they are not understood, and what lies where keys are kept by custom.
func (o SupportOptions) secretFiles(cfg *config.Config) []string {
	named := filesNamedIn(cfg)
	texts, _ := filepath.Glob(filepath.Join(o.StateDir, "revisions", "*", "config.yaml"))              // torn ones, too
	others, _ := filepath.Glob(filepath.Join(o.StateDir, "format-*", "revisions", "*", "config.yaml")) // see disk.Format
	for _, path := range slices.Concat(texts, others, []string{o.Doctor.File}) {
		if src, err := config.LoadFile(path); err == nil {
			named = append(named, config.KeyFilesIn(src.Bytes, filepath.Dir(o.Doctor.File))...)
		}
	}
	var out []string
	for _, path := range named {
		f := keys.FilesOf(path)
		// Beside the link itself, too: nothing says that no one put a key there.
		out = append(out, path, path+".next", path+".old", f.Present, f.Next, f.Old)
	}
	below, _ := filepath.Glob(filepath.Join(o.StateDir, "keys", "*"))
	out = append(out, below...)
	slices.Sort(out)
	return slices.Compact(out)
}

// filesNamedIn are the files that a configuration names for its keys: every field whose name ends in File, so that one that is added
// is not forgotten here.
func filesNamedIn(cfg *config.Config) (out []string) {
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice, reflect.Array:
			if k := v.Type().Elem().Kind(); k == reflect.Struct || k == reflect.Pointer {
				for i := range v.Len() {
					walk(v.Index(i))
				}
			}
		case reflect.Struct:
			for i := range v.NumField() {
				f, name := v.Field(i), v.Type().Field(i).Name
				if f.Kind() == reflect.String && strings.HasSuffix(name, "File") && name != "File" && f.String() != "" {
					out = append(out, f.String())
				} else if v.Type().Field(i).IsExported() {
					walk(f)
				}
			}
		}
	}
	if cfg != nil {
		walk(reflect.ValueOf(cfg))
	}
	return out
}

// publicKeys are the peers' and our own, which look like private ones and are shown.
func publicKeys(cfg *config.Config) (out []string) {
	if cfg == nil {
		return nil
	}
	for _, t := range cfg.Tunnels {
		for _, p := range t.Peers {
			out = append(out, p.PublicKeys...)
		}
		if t.PrivateKeyFile == "" {
			continue
		}
		f := keys.FilesOf(t.PrivateKeyFile)
		for _, path := range []string{f.Present, f.Next, f.Old} {
			if _, err := os.Stat(path); err != nil {
				continue
			}
			if own, err := keys.PublicKey(path); err == nil {
				out = append(out, own)
			}
		}
	}
	return out
}
