// SPDX-License-Identifier: Apache-2.0

package images

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"maps"
	"net/url"
	"os/exec"
	"slices"
	"strings"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// billOfMaterials is CycloneDX in JSON: the program's Go modules, as the program itself
// names them, and the Debian packages of the other files of its image.
func billOfMaterials(ctx context.Context, name, version, arch, binary string, entries []Entry) ([]byte, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("modules of %s: %w", name, err)
	}
	components := []cyclonedx.Component{component("golang", "stdlib", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		components = append(components, component("golang", m.Path, m.Version))
	}
	packages, err := debianPackages(ctx, binary, entries)
	if err != nil {
		return nil, fmt.Errorf("packages of image %s: %w", name, err)
	}
	for _, p := range slices.Sorted(maps.Keys(packages)) {
		components = append(components, component("deb/debian", p, packages[p]))
	}
	bom := cyclonedx.NewBOM()
	main := component("oci", name, version)
	main.Type = cyclonedx.ComponentTypeContainer
	main.PackageURL += "&arch=" + arch
	main.PackageURL = strings.Replace(main.PackageURL, "&", "?", 1)
	main.BOMRef = main.PackageURL
	bom.Metadata = &cyclonedx.Metadata{Component: &main}
	bom.Components = &components
	var out bytes.Buffer
	if err := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).EncodeVersion(bom, cyclonedx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("bill of materials of %s: %w", name, err)
	}
	return out.Bytes(), nil
}

func component(kind, name, version string) cyclonedx.Component {
	purl := "pkg:" + kind + "/" + name + "@" + url.PathEscape(version)
	return cyclonedx.Component{Type: cyclonedx.ComponentTypeLibrary, Name: name, Version: version, PackageURL: purl, BOMRef: purl}
}

// debianPackages finds which packages the files come from, with their versions. Files of
// no package, such as the list of certificate authorities, are made by one.
func debianPackages(ctx context.Context, binary string, entries []Entry) (map[string]string, error) {
	var files []string
	for _, e := range entries {
		if e.Source != "" && e.Source != binary {
			files = append(files, e.Source)
			// dpkg knows many libraries by the path from before /usr was merged.
			if before, merged := strings.CutPrefix(e.Source, "/usr/lib"); merged {
				files = append(files, "/lib"+before)
			}
		}
	}
	packages := map[string]string{}
	if len(files) == 0 {
		return packages, nil
	}
	// It fails where one file is of no package and prints the others.
	owners, _ := exec.CommandContext(ctx, "dpkg-query", append([]string{"--search"}, files...)...).Output()
	var owning []string
	for line := range strings.Lines(string(owners)) {
		if owner, _, ok := strings.Cut(line, ": "); ok && !strings.Contains(owner, ",") && !slices.Contains(owning, owner) {
			owning = append(owning, owner)
		}
	}
	if len(owning) == 0 {
		return packages, nil
	}
	versions, err := exec.CommandContext(ctx, "dpkg-query", append([]string{"--show", "--showformat=${Package} ${Version}\n"}, owning...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("ask dpkg for versions: %w", err)
	}
	for line := range strings.Lines(string(versions)) {
		if name, version, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			packages[name] = version
		}
	}
	return packages, nil
}
