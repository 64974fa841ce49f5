// SPDX-License-Identifier: Apache-2.0

package dcgm

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

static uintptr_t open_library(const char *path) { return (uintptr_t)dlopen(path, RTLD_LAZY | RTLD_GLOBAL); }
static int has_function(uintptr_t library, const char *name) { return dlsym((void *)library, name) != NULL; }
static void free_string(char *s) { free(s); }
*/
import "C"

import (
	"fmt"
	"runtime"
	"strings"
)

// soname is what the bindings load.
const soname = "libdcgm.so.4"

// required are the functions that a Reader calls, directly or through the bindings.
// They are bound when first called, and one that the library lacks would end the
// process there; so they are looked for before.
var required = []string{
	"errorString", "dcgmInit", "dcgmShutdown", "dcgmStopEmbedded", "dcgmDisconnect", "dcgmGetEntityGroupEntities", "dcgmGetGpuStatus", "dcgmGetGpuInstanceHierarchy",
	"dcgmGroupCreate", "dcgmGroupAddEntity", "dcgmGroupDestroy", "dcgmFieldGroupCreate", "dcgmFieldGroupDestroy",
	"dcgmWatchFields", "dcgmUpdateAllFields", "dcgmEntitiesGetLatestValues", "dcgmGetValuesSince_v2",
}

// Functions that some modes, or some values, need.
const (
	startEmbedded  = "dcgmStartEmbedded"
	connectAddress = "dcgmConnect_v2"
	connectURL     = "dcgmConnect_v3"
	metricGroups   = "dcgmProfGetSupportedMetricGroups"
	linkStatus     = "dcgmGetNvLinkLinkStatus"
)

// library is libdcgm.so.4, opened before the bindings do: from a path of our own
// choice, since the dynamic linker gives the bindings the library that has the name
// already; and for good, since functions bound in a library that was closed and
// opened again would point into nothing.
type library struct{ handle C.uintptr_t }

func load(path string) (library, error) {
	if path == "" {
		path = soname
	}
	name := C.CString(path)
	defer C.free_string(name)
	runtime.LockOSThread() // dlerror is of the thread
	defer runtime.UnlockOSThread()
	handle := C.open_library(name)
	if handle == 0 {
		return library{}, fmt.Errorf("%s cannot be loaded (%s); install DCGM 4, or use NVML", path, C.GoString(C.dlerror()))
	}
	l := library{handle}
	var missing []string
	for _, function := range required {
		if !l.has(function) {
			missing = append(missing, function)
		}
	}
	if len(missing) > 0 {
		return library{}, fmt.Errorf("%s lacks %s; install DCGM 4.5 or newer, or use NVML", path, strings.Join(missing, ", "))
	}
	return l, nil
}

func (l library) has(function string) bool {
	name := C.CString(function)
	defer C.free_string(name)
	return C.has_function(l.handle, name) != 0
}
