package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Figure is a plot of a report, in a file beside it.
type Figure struct {
	File, About string
	SVG         []byte
}

// Write writes a report and its plots.
func Write(dir, name, text string, figures []Figure) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range figures {
		if err := os.WriteFile(filepath.Join(dir, f.File), f.SVG, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
}

// Load reads the results that Save wrote.
func Load(path string, results any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, results); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Save keeps the results of a run beside its report, so that it can be drawn again.
func Save(path string, results any) error {
	data, err := json.MarshalIndent(results, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
