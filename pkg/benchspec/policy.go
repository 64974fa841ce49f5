// SPDX-License-Identifier: Apache-2.0

package benchspec

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// AdmissionRule is one validation of the admission policies, in the terms of
// ValidatingAdmissionPolicy. Its expressions see variables.annotations, the pod's
// (or pod template's) annotations as a map of strings.
type AdmissionRule struct {
	// Expression is true for what may pass.
	Expression string
	// MessageExpression says what is wrong, with the value found.
	MessageExpression string
	// Message stands in for MessageExpression when that cannot be shown (a value
	// with line breaks).
	Message string
}

// AdmissionRules derives from the table what the parser refuses, as CEL: one rule
// per annotation, one per combination, and one for unknown names.
func AdmissionRules() []AdmissionRule {
	var rules []AdmissionRule
	for _, r := range table {
		if r.Writer == WriterUser {
			rules = append(rules, r.admission())
		}
	}
	for _, t := range together {
		rules = append(rules, t.admission())
	}
	return append(rules, unknownNames())
}

func (r row) admission() AdmissionRule {
	name := celString(r.Name)
	v := "variables.annotations[" + name + "]"
	right := []string{
		fmt.Sprintf("size(%s) <= %d", v, longestValue),
		fmt.Sprintf("%s.matches(%s)", v, celString(r.kind.whole())),
	}
	if r.kind.cel != "" {
		right = append(right, "("+inValue(r.kind.cel, v)+")")
	}
	return AdmissionRule{
		Expression: fmt.Sprintf("!(%s in variables.annotations) || (%s)", name, strings.Join(right, " && ")),
		MessageExpression: fmt.Sprintf("%s + (size(%s) > %d ? %s.substring(0, %d) + '...' : %s) + %s",
			celString("annotation "+r.Name+": \""), v, longestQuoted, v, longestQuoted, v,
			celString("\" "+r.kind.wrong()+"; example of a right one: "+r.Example)),
		Message: "annotation " + r.Name + " " + r.kind.wrong() + "; example of a right one: " + r.Example,
	}
}

func (r rule) admission() AdmissionRule {
	here := celString(r.annotation) + " in variables.annotations"
	other := celString(r.other) + " in variables.annotations"
	if !r.needed {
		other = "!(" + other + ")"
	}
	message := "annotation " + r.annotation + " " + r.problem
	return AdmissionRule{
		Expression:        fmt.Sprintf("!(%s) || %s", here, other),
		MessageExpression: celString(message),
		Message:           message,
	}
}

func unknownNames() AdmissionRule {
	names := make([]string, 0, len(table))
	short := make([]string, 0, len(table))
	for _, r := range table {
		names = append(names, celString(r.Name))
		if r.Writer == WriterUser {
			short = append(short, strings.TrimPrefix(r.Name, Prefix))
		}
	}
	unknown := fmt.Sprintf("variables.annotations.exists(k, k.startsWith(%s) && !(k in [%s]))", celString(Prefix), strings.Join(names, ", "))
	first := fmt.Sprintf("variables.annotations.filter(k, k.startsWith(%s) && !(k in [%s]))[0]", celString(Prefix), strings.Join(names, ", "))
	known := "is not an annotation that Spotbench knows; the known ones under " + Prefix + " are " + strings.Join(short, ", ") + "; example: " + AnnotationGPUMemory + ": 80Gi"
	return AdmissionRule{
		Expression:        "!" + unknown,
		MessageExpression: fmt.Sprintf("%s + %s + %s", celString("annotation "), first, celString(" "+known)),
		Message:           "an annotation under " + Prefix + " " + known,
	}
}

// valueIdentifier is the v of a kind's expression.
var valueIdentifier = regexp.MustCompile(`\bv\b`)

// inValue puts the annotation's value where a kind's expression has v.
func inValue(expression, value string) string {
	return valueIdentifier.ReplaceAllString(expression, strings.ReplaceAll(value, "$", "$$"))
}

// celString quotes a string as CEL literal: its escapes are a superset of Go's
// for valid UTF-8, which everything in the table is.
func celString(s string) string { return strconv.Quote(s) }
