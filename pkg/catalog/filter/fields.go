// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// Field is one parameter of a filter.
type Field struct {
	Name, Doc, Default string
	// Values are those it takes; nil is any.
	Values []string
	Value  reflect.Value
}

// Fields are the parameters of the filter at which a pointer points, those of
// embedded filters among them. Their values can be set.
func Fields(filter any) []Field { return fields(reflect.ValueOf(filter).Elem()) }

func fields(v reflect.Value) []Field {
	var out []Field
	for n := range v.NumField() {
		field := v.Type().Field(n)
		if field.Anonymous {
			out = append(out, fields(v.Field(n))...)
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("query"), ",")
		f := Field{Name: name, Doc: field.Tag.Get("doc"), Default: field.Tag.Get("default"), Value: v.Field(n)}
		if enum := field.Tag.Get("enum"); enum != "" {
			f.Values = strings.Split(enum, ",")
		}
		out = append(out, f)
	}
	return out
}

// Encode is the filter at which a pointer points as a query. What is empty is
// left out.
func Encode(filter any) url.Values {
	values := url.Values{}
	for _, f := range Fields(filter) {
		if f.Value.IsZero() {
			continue
		}
		switch v := f.Value.Interface().(type) {
		case time.Time:
			values.Set(f.Name, v.UTC().Format(time.RFC3339Nano))
		case []string:
			for _, item := range v {
				values.Add(f.Name, item)
			}
		case bool:
			values.Set(f.Name, strconv.FormatBool(v))
		case int:
			values.Set(f.Name, strconv.Itoa(v))
		case int64:
			values.Set(f.Name, strconv.FormatInt(v, 10))
		case float64:
			values.Set(f.Name, strconv.FormatFloat(v, 'g', -1, 64))
		default:
			values.Set(f.Name, f.Value.String())
		}
	}
	return values
}

// Decode sets the filter at which a pointer points from a query. What the query
// has besides is passed over.
func Decode(values url.Values, filter any) error {
	for _, f := range Fields(filter) {
		given := slices.DeleteFunc(slices.Clone(values[f.Name]), func(s string) bool { return s == "" })
		if len(given) > 0 {
			if err := f.Set(given); err != nil {
				return fmt.Errorf("%w: %w", catalog.ErrInvalid, err)
			}
		}
	}
	return nil
}

// Set gives the field one value, or several if it is a list. A time may be a day.
func (f Field) Set(given []string) error {
	last := given[len(given)-1]
	for _, v := range given {
		if f.Values != nil && !slices.Contains(f.Values, v) {
			return fmt.Errorf("%s %q is unknown; use one of %s", f.Name, v, strings.Join(f.Values, ", "))
		}
	}
	var err error
	switch p := f.Value.Addr().Interface().(type) {
	case *[]string:
		*p = given
	case *time.Time:
		if *p, err = time.Parse(time.DateOnly, last); err != nil {
			*p, err = time.Parse(time.RFC3339, last)
		}
		if err != nil {
			return fmt.Errorf("%s %q is neither a day nor a time; write for example 2026-01-31 or 2026-01-31T18:00:00Z", f.Name, last)
		}
	case *bool:
		if *p, err = strconv.ParseBool(last); err != nil {
			return fmt.Errorf("%s %q is neither true nor false", f.Name, last)
		}
	case *int:
		if *p, err = strconv.Atoi(last); err != nil {
			return fmt.Errorf("%s %q is no whole number", f.Name, last)
		}
	case *int64:
		if *p, err = strconv.ParseInt(last, 10, 64); err != nil {
			return fmt.Errorf("%s %q is no whole number", f.Name, last)
		}
	case *float64:
		if *p, err = strconv.ParseFloat(last, 64); err != nil {
			return fmt.Errorf("%s %q is no number", f.Name, last)
		}
	default:
		f.Value.SetString(last)
	}
	return nil
}
