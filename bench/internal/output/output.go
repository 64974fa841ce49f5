// SPDX-License-Identifier: Apache-2.0

// Package output writes what a benchmark found.
package output

import (
	"encoding/json"
	"io"
	"os"
)

// JSON writes v, indented, to a file, or to stdout if it is called "-".
func JSON(file string, stdout io.Writer, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if file == "-" {
		_, err = stdout.Write(data)
		return err
	}
	return os.WriteFile(file, data, 0o644)
}
