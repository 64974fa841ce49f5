// SPDX-License-Identifier: Apache-2.0

package health

// xids are the errors that NVIDIA documents ("XID Errors", docs.nvidia.com/deploy/xid-errors)
// and that say something about a node, in our words. Hardware is true for those after
// which the GPU cannot be relied on until it is reset; application for those that a
// faulty program causes.
var xids = map[int]struct {
	meaning               string
	hardware, application bool
}{
	13:  {meaning: "a program's kernel raised an exception", application: true},
	31:  {meaning: "a program used an address that is not mapped", application: true},
	32:  {meaning: "corrupted command stream"},
	38:  {meaning: "driver firmware error"},
	43:  {meaning: "a program's channel was stopped", application: true},
	45:  {meaning: "a program's channels were cleaned up", application: true},
	48:  {meaning: "memory error that could not be corrected", hardware: true},
	61:  {meaning: "internal microcontroller breakpoint"},
	62:  {meaning: "internal microcontroller halt", hardware: true},
	63:  {meaning: "a memory row was remapped or a page retired"},
	64:  {meaning: "remapping a memory row or retiring a page failed", hardware: true},
	68:  {meaning: "video decoder exception", application: true},
	69:  {meaning: "a program raised a graphics engine class error", application: true},
	74:  {meaning: "NVLink error", hardware: true},
	79:  {meaning: "the GPU has fallen off the bus", hardware: true},
	92:  {meaning: "many corrected memory errors"},
	94:  {meaning: "memory error contained to one program"},
	95:  {meaning: "memory error that was not contained", hardware: true},
	109: {meaning: "a program's context switch timed out", application: true},
	119: {meaning: "the GPU system processor does not answer", hardware: true},
	120: {meaning: "the GPU system processor failed", hardware: true},
	136: {meaning: "link training failed", hardware: true},
	140: {meaning: "memory error that was not recovered", hardware: true},
	143: {meaning: "the GPU could not be initialized", hardware: true},
	149: {meaning: "fatal NVLink error", hardware: true},
}

// Meaning says what an XID is, in a few words.
func Meaning(xid int) string {
	if xid == 0 {
		return "no error"
	}
	if known, ok := xids[xid]; ok {
		return known.meaning
	}
	return "see NVIDIA's documentation of XID errors"
}

// OfApplication says that a program causes the XID and the GPU is sound.
func OfApplication(xid int) bool { return xids[xid].application }

// OfHardware says that after the XID the GPU cannot be relied on.
func OfHardware(xid int) bool { return xids[xid].hardware }

// Cause says whose fault an XID is: "application", "hardware" or "other".
func Cause(xid int) string {
	switch {
	case OfApplication(xid):
		return "application"
	case OfHardware(xid):
		return "hardware"
	default:
		return "other"
	}
}
