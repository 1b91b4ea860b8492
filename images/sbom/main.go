// Command sbom writes what an image is made of as a CycloneDX document: Debian's packages, of mkosi's manifest, and the Go modules that
// the binary says it was built from. The same inputs give the same bytes.
package main

import (
	"debug/buildinfo"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	manifest := flag.String("manifest", "", "mkosi's manifest, JSON")
	binary := flag.String("binary", "", "a Go binary of the image")
	flag.Parse()
	if err := write(os.Stdout, *manifest, *binary); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// packages is what of the manifest is read.
type packages struct {
	Config   struct{ Name, Version, Distribution, Release string }
	Packages []struct{ Name, Version, Architecture string }
}

func write(out io.Writer, manifest, binary string) error {
	raw, err := os.ReadFile(manifest)
	if err != nil {
		return err
	}
	var m packages
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("%s: %w", manifest, err)
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("%s: %w", binary, err)
	}
	image := component(cdx.ComponentTypeFirmware, m.Config.Name, m.Config.Version, "pkg:generic/"+m.Config.Name+"@"+url.PathEscape(m.Config.Version))
	parts := []cdx.Component{component(cdx.ComponentTypeFramework, "go", info.GoVersion, "pkg:golang/stdlib@"+strings.TrimPrefix(info.GoVersion, "go"))}
	for _, p := range m.Packages {
		purl := fmt.Sprintf("pkg:deb/%s/%s@%s?arch=%s&distro=%s", m.Config.Distribution, url.PathEscape(p.Name), url.PathEscape(p.Version), p.Architecture, m.Config.Release)
		parts = append(parts, component(cdx.ComponentTypeLibrary, p.Name, p.Version, purl))
	}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		parts = append(parts, component(cdx.ComponentTypeLibrary, d.Path, d.Version, "pkg:golang/"+d.Path+"@"+d.Version))
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &image}
	bom.Components = &parts
	return cdx.NewBOMEncoder(out, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6)
}

func component(kind cdx.ComponentType, name, version, purl string) cdx.Component {
	return cdx.Component{BOMRef: purl, Type: kind, Name: name, Version: version, PackageURL: purl}
}
