// SPDX-License-Identifier: Apache-2.0

package gcp

import (
	"fmt"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
)

// parsePreempted reads the value of instance/preempted.
func parsePreempted(value string) (bool, error) {
	switch strings.ToUpper(strings.TrimSpace(value)) {
	case "TRUE":
		return true, nil
	case "FALSE":
		return false, nil
	default:
		return false, fmt.Errorf("the value %.40q is neither TRUE nor FALSE", value)
	}
}

// parseMaintenance reads the value of instance/maintenance-event; the kind is empty
// where there is none.
func parseMaintenance(value string) (interruption.Kind, string, error) {
	switch strings.TrimSpace(value) {
	case "NONE":
		return "", "", nil
	case "MIGRATE_ON_HOST_MAINTENANCE":
		return interruption.KindPause, "migrate", nil
	case "TERMINATE_ON_HOST_MAINTENANCE":
		return interruption.KindMaintenance, "terminate", nil
	default:
		return "", "", fmt.Errorf("the value %.60q is not one of NONE, MIGRATE_ON_HOST_MAINTENANCE and TERMINATE_ON_HOST_MAINTENANCE", value)
	}
}

// The time that Compute Engine leaves before it stops or migrates an instance for
// maintenance of its host: an hour for instances with GPUs, which cannot migrate.
const (
	DefaultNotice            = 30 * time.Second
	DefaultMaintenanceNotice = 60 * time.Second
)
