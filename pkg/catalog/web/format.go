// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"
)

// none stands where a figure is not known.
const none = "–"

var functions = template.FuncMap{
	"path": PathOf, "usd": usd, "span": span, "when": when, "clock": clock, "iso": iso, "ms": ms, "number": number, "count": count,
	"bytes": bytesText, "lower": strings.ToLower, "short": short, "pct": pct,
	"signed": signed, "p": probability, "deref": func(v *float64) float64 { return *v }, "inc": func(n int) int { return n + 1 }, "minus": func(a, b int) int { return a - b },
	"hundred": func(v float64) float64 { return 100 * v }, "modelpath": PathOfModel, "name": nameOf, "navigation": func() []entry { return navigation },
}

// entry is one of the navigation's.
type entry struct{ Name, Title, Path string }

var navigation = []entry{{"runs", "Runs", "/"}, {"models", "Models", "/models"}, {"compare", "Compare", "/compare"}, {"pareto", "Pareto", "/pareto"}, {"fleet", "Fleet", "/fleet"}, {"savings", "Savings", "/savings"}}

// signed is a difference in percent, with its sign.
func signed(v *float64) string {
	if v == nil {
		return none
	}
	sign := "+"
	if *v < 0 {
		sign = "−"
	}
	return sign + strconv.FormatFloat(math.Abs(*v), 'f', 1, 64) + " %"
}

// probability is a p to three digits.
func probability(v *float64) string {
	switch {
	case v == nil:
		return "p unknown"
	case *v < 0.001:
		return "p < 0.001"
	}
	return "p = " + strconv.FormatFloat(*v, 'f', 3, 64)
}

// usd is money with the digits that matter: cents from a dollar up, else three
// significant digits.
func usd(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "$0"
	case a >= 1000:
		return "$" + group(strconv.FormatFloat(v, 'f', 0, 64))
	case a >= 1:
		return "$" + strconv.FormatFloat(v, 'f', 2, 64)
	default:
		digits := 2 - int(math.Floor(math.Log10(a)))
		return "$" + strconv.FormatFloat(v, 'f', min(digits, 6), 64)
	}
}

// span is a time span from seconds: "0.4 s", "12 s", "3 min 20 s", "2 h 05 min", "3 d 4 h".
func span(seconds float64) string {
	switch s := math.Round(seconds); {
	case seconds < 0 || math.IsNaN(seconds):
		return none
	case seconds == 0:
		return "0 s"
	case seconds < 9.95:
		return strconv.FormatFloat(seconds, 'f', 1, 64) + " s"
	case s < 60:
		return fmt.Sprintf("%.0f s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %02d s", int(s)/60, int(s)%60)
	case s < 86400:
		return fmt.Sprintf("%d h %02d min", int(s)/3600, int(s)%3600/60)
	default:
		return fmt.Sprintf("%d d %d h", int(s)/86400, int(s)%86400/3600)
	}
}

func when(t time.Time) string {
	if t.IsZero() {
		return none
	}
	return t.UTC().Format("2 Jan 2006, 15:04 UTC")
}

func clock(t time.Time) string {
	if t.IsZero() {
		return none
	}
	return t.UTC().Format("15:04:05")
}

func iso(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// ms is a latency in milliseconds to three significant digits.
func ms(v *float64) string {
	switch {
	case v == nil:
		return none
	case *v == 0:
		return "0"
	case *v >= 100:
		return group(strconv.FormatFloat(*v, 'f', 0, 64))
	case *v >= 10:
		return strconv.FormatFloat(*v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(*v, 'f', 2, 64)
	}
}

// number is a rate to three significant digits or to the unit.
func number(v *float64) string { return ms(v) }

func count(v any) string {
	switch n := v.(type) {
	case int:
		return group(strconv.Itoa(n))
	case int64:
		return group(strconv.FormatInt(n, 10))
	case float64:
		return group(strconv.FormatFloat(n, 'f', 0, 64))
	}
	return fmt.Sprint(v)
}

// group sets thin spaces between thousands.
func group(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	if len(digits) <= 4 {
		return sign + digits
	}
	var b strings.Builder
	for i, r := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteRune('\u202f')
		}
		b.WriteRune(r)
	}
	return sign + b.String()
}

func bytesText(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if v >= unit.size {
			return strconv.FormatFloat(v/unit.size, 'f', 1, 64) + " " + unit.name
		}
	}
	return strconv.FormatFloat(v, 'f', 0, 64) + " B"
}

// short cuts an image digest or a UUID to what tells it apart.
func short(s string) string {
	if _, digest, ok := strings.Cut(s, "sha256:"); ok {
		return "sha256:" + digest[:min(len(digest), 12)]
	}
	return s
}

func pct(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) + " %" }
