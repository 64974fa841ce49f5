// SPDX-License-Identifier: Apache-2.0

package benchspec

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/spotbench/spotbench/pkg/gpu"
)

type (
	duration  = time.Duration
	timestamp = time.Time
)

// kind is one type of value: how it is called, and which strings are of it. The
// admission policy and the parser share its pattern, so that they cannot differ;
// what a pattern cannot say is in cel, an expression over v that the parser's
// function mirrors (a test holds the two together).
type kind struct {
	title string
	// wants completes "must be …".
	wants string
	// pattern matches the right values (RE2), "" for all.
	pattern string
	// cel further restricts the values that match, "" for no restriction.
	cel string
	// values are the right ones of an enumeration.
	values []string
}

// longestDuration bounds durations: a year. More is a typing error, and sums of
// hours stay far from the range's end.
const longestDuration = 8760 * time.Hour

// longestValue bounds every value, in bytes.
const longestValue = 1024

const (
	// The digits and parts are few enough for no sum to overflow.
	durationPattern = `([0-9]{1,4}(\.[0-9]{1,9})?h|[0-9]{1,6}(\.[0-9]{1,9})?m|[0-9]{1,8}(\.[0-9]{1,9})?s|[0-9]{1,11}(\.[0-9]{1,9})?ms){1,4}`
	// datePattern has the days of each month, and the 29th of February of leap years
	// alone, of two centuries: every match is a time, for Go and for CEL.
	datePattern = `(2[01][0-9]{2}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|` +
		`(2[01](0[48]|[2468][048]|[13579][26])|2000)-02-29)`
	pathPattern  = `(/[^/\x00-\x1f\x7f]+)+/?`
	jsonString   = `"([^"\\\x00-\x1f\x7f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"`
	jsonNonEmpty = `"([^"\\\x00-\x1f\x7f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})+"`
)

var (
	kindModels = kind{
		title:   "list of GPU models",
		wants:   "known GPU models (such as H100-80GB) or raw nvidia.com/gpu.product values, separated by commas, or by | where they are as good as each other",
		pattern: `[A-Za-z0-9._ ,|-]+`,
		cel:     "v.replace('|', ',').split(',').all(m, m.trim().matches(" + celString(oneModel) + "))",
	}
	kindQuantity = kind{
		title:   "memory quantity",
		wants:   "a positive whole number with a unit that Kubernetes knows (Gi, Mi, G, M)",
		pattern: `[0-9]{1,15}(Ki|Mi|Gi|Ti|k|M|G|T)?`,
		cel:     "isQuantity(v) && quantity(v).isInteger() && quantity(v).isGreaterThan(quantity('0'))",
	}
	kindCapacity    = enum("capacity", string(CapacitySpot), string(CapacityOnDemand), string(CapacityAny))
	kindProbability = kind{
		title:   "probability",
		wants:   "a decimal fraction from 0 to 1",
		pattern: `0|0?\.[0-9]{1,9}|1|1\.0{1,9}`,
	}
	kindDuration = kind{
		title:   "duration",
		wants:   "a positive duration in hours, minutes and seconds, at most 8760h",
		pattern: durationPattern,
		cel:     "duration(v) > duration('0s') && duration(v) <= duration('8760h')",
	}
	kindTimestamp = kind{
		title: "RFC 3339 time",
		wants: "a time as RFC 3339 with zone, from the year 2000 to 2199",
		pattern: datePattern + `T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?` +
			`(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])`,
	}
	kindPath = kind{
		title:   "directory",
		wants:   `an absolute directory other than "/", without "." or ".." in it`,
		pattern: pathPattern,
		cel:     `!v.matches('(^|/)[.][.]?(/|$)')`,
	}
	kindCommand = kind{
		title:   "JSON list of strings",
		wants:   "a JSON list of strings, the program first",
		pattern: `[ \t]*\[[ \t]*` + jsonNonEmpty + `([ \t]*,[ \t]*` + jsonString + `)*[ \t]*\][ \t]*`,
	}
	kindSignal   = enum("signal", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")
	kindInterval = kind{
		title:   "duration or `auto`",
		wants:   "auto, or a duration from 1s to 8760h",
		pattern: `auto|` + durationPattern,
		cel:     "v == 'auto' || (duration(v) >= duration('1s') && duration(v) <= duration('8760h'))",
	}
	kindName = kind{
		title:   "name",
		wants:   "a name of letters, digits and . _ / : @ + - that begins with a letter or digit, at most 255 long",
		pattern: `[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,254}`,
	}
	kindIsolation = enum("isolation", string(IsolationNode), string(IsolationNone))
	kindRun       = kind{
		title:   "name of a run",
		wants:   "lower-case letters, digits, dots, underscores and dashes, beginning and ending with a letter or digit, at most 128 long",
		pattern: `[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?`,
	}
)

func enum(title string, values ...string) kind {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return kind{title: title, wants: list(values), pattern: strings.Join(quoted, "|"), values: values}
}

// oneModel matches what gpu.CanonicalName accepts, spelt as it may be in a list:
// every name and alias of the catalogue in any case, with or without the vendor's
// prefix, a MIG slice of one, and whatever begins like a product.
var oneModel = func() string {
	var names []string
	for _, m := range gpu.Models() {
		for _, n := range append([]string{m.Name}, m.Aliases...) {
			n = regexp.QuoteMeta(strings.TrimPrefix(strings.ToUpper(n), "NVIDIA-"))
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	known := `(?i:(NVIDIA-)?(` + strings.Join(names, "|") + `))(-MIG-` + gpu.ProfilePattern + `)?`
	product := `(` + strings.Join(gpu.ProductPrefixes(), "|") + `)([A-Za-z0-9._-]{0,54}[A-Za-z0-9])`
	return `^(` + known + `|` + product + `)$`
}()

var oneModelPattern = regexp.MustCompile(oneModel)

// whole is the pattern anchored at both ends.
func (k kind) whole() string { return `^(` + k.pattern + `)$` }

var compiled = map[string]*regexp.Regexp{}

func init() {
	for _, r := range table {
		if r.kind.pattern != "" {
			compiled[r.kind.title] = regexp.MustCompile(r.kind.whole())
		}
	}
}

// mismatch says what is wrong with a value by the kind's pattern alone.
func (k kind) mismatch(v string) string {
	switch {
	case len(v) > longestValue:
		return "is longer than " + strconv.Itoa(longestValue) + " bytes"
	case !compiled[k.title].MatchString(v):
		return k.wrong()
	}
	return ""
}

func (k kind) wrong() string { return "must be " + k.wants }

func (k kind) parseEnum(v string) (string, string) { return v, k.mismatch(v) }

// preference is models in the order they are listed; those of one rank are as good as
// each other.
type preference struct {
	models []string
	ranks  []int
}

func parseModels(v string) (preference, string) {
	if problem := kindModels.mismatch(v); problem != "" {
		return preference{}, problem
	}
	var p preference
	var wrong []string
	for rank, group := range strings.Split(v, ",") {
		for part := range strings.SplitSeq(group, "|") {
			part = strings.TrimSpace(part)
			name, err := gpu.CanonicalName(part)
			switch {
			case err != nil:
				wrong = append(wrong, err.Error())
			case !oneModelPattern.MatchString(part):
				wrong = append(wrong, strconv.Quote(part)+" is not spelt like a GPU model: write "+name)
			case !slices.Contains(p.models, name):
				p.models, p.ranks = append(p.models, name), append(p.ranks, rank)
			}
		}
	}
	if len(wrong) > 0 {
		return preference{}, "names no usable GPU model: " + strings.Join(wrong, "; ")
	}
	if !strings.Contains(v, "|") {
		p.ranks = nil // each is its place
	}
	return p, ""
}

func parseQuantity(v string) (int64, string) {
	if problem := kindQuantity.mismatch(v); problem != "" {
		return 0, problem
	}
	q, err := resource.ParseQuantity(v)
	if err != nil {
		return 0, kindQuantity.wrong()
	}
	n, whole := q.AsInt64()
	if !whole || n <= 0 {
		return 0, kindQuantity.wrong()
	}
	return n, ""
}

func parseProbability(v string) (float64, string) {
	if problem := kindProbability.mismatch(v); problem != "" {
		return 0, problem
	}
	p, err := strconv.ParseFloat(v, 64)
	if err != nil {
		return 0, kindProbability.wrong()
	}
	return p, ""
}

func parseDuration(v string) (time.Duration, string) {
	if problem := kindDuration.mismatch(v); problem != "" {
		return 0, problem
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 || d > longestDuration {
		return 0, kindDuration.wrong()
	}
	return d, ""
}

func parseTimestamp(v string) (time.Time, string) {
	if problem := kindTimestamp.mismatch(v); problem != "" {
		return time.Time{}, problem
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		return time.Time{}, kindTimestamp.wrong()
	}
	return t, ""
}

func parsePath(v string) (string, string) {
	if problem := kindPath.mismatch(v); problem != "" {
		return "", problem
	}
	if clean := path.Clean(v); clean != strings.TrimSuffix(v, "/") {
		return "", kindPath.wrong()
	}
	return path.Clean(v), ""
}

func parseCommand(v string) ([]string, string) {
	if problem := kindCommand.mismatch(v); problem != "" {
		return nil, problem
	}
	var command []string
	if err := json.Unmarshal([]byte(v), &command); err != nil {
		return nil, kindCommand.wrong()
	}
	return command, ""
}

func parseInterval(v string) (Interval, string) {
	if problem := kindInterval.mismatch(v); problem != "" {
		return Interval{}, problem
	}
	if v == "auto" {
		return Interval{Auto: true}, ""
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < time.Second || d > longestDuration {
		return Interval{}, kindInterval.wrong()
	}
	return Interval{Every: d}, ""
}

func parseName(v string) (string, string) { return v, kindName.mismatch(v) }

func parseRun(v string) (string, string) { return v, kindRun.mismatch(v) }
