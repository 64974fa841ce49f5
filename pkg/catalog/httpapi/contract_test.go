// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"
)

// document is the OpenAPI document as a tree, as any other reader sees it.
type document struct {
	root     map[string]any
	compiler *jsonschema.Compiler
}

func readDocument(t *testing.T, s *stage) document {
	t.Helper()
	_, text := s.send(t, "GET", "/openapi.json", "", "")
	root, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	d := document{root: root.(map[string]any), compiler: jsonschema.NewCompiler()}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource("https://catalog/openapi.json", root); err != nil {
		t.Fatal(err)
	}
	return d
}

// schema compiles the schema at a place of the document.
func (d document) schema(t *testing.T, steps ...string) *jsonschema.Schema {
	t.Helper()
	for n, step := range steps {
		steps[n] = url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(step))
	}
	compiled, err := d.compiler.Compile("https://catalog/openapi.json#/" + strings.Join(steps, "/"))
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// resolve follows a reference.
func (d document) resolve(schema map[string]any) map[string]any {
	for {
		ref, ok := schema["$ref"].(string)
		if !ok {
			return schema
		}
		var at any = d.root
		for step := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
			at = at.(map[string]any)[step]
		}
		schema = at.(map[string]any)
	}
}

func number(v any, otherwise float64) float64 {
	if n, ok := v.(json.Number); ok {
		f, _ := n.Float64()
		return f
	}
	return otherwise
}

// kind is the type of a schema; null is left out of those that allow it.
func kind(schema map[string]any) string {
	if list, ok := schema["type"].([]any); ok {
		for _, v := range list {
			if v != "null" {
				return v.(string)
			}
		}
	}
	name, _ := schema["type"].(string)
	return name
}

// value makes a value that the schema allows.
func (d document) value(t *rapid.T, schema map[string]any, label string) any {
	schema = d.resolve(schema)
	if options, ok := schema["enum"].([]any); ok {
		return rapid.SampledFrom(options).Draw(t, label)
	}
	switch kind(schema) {
	case "object":
		out := map[string]any{}
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		names := make([]string, 0, len(properties))
		for name := range properties {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			property := properties[name].(map[string]any)
			if property["readOnly"] == true || !slices.Contains(required, any(name)) && !rapid.Bool().Draw(t, label+"."+name+"?") {
				continue
			}
			out[name] = d.value(t, property, label+"."+name)
		}
		return out
	case "array":
		items, _ := schema["items"].(map[string]any)
		out := []any{}
		for n := range rapid.IntRange(0, 3).Draw(t, label+"#") {
			out = append(out, d.value(t, items, fmt.Sprintf("%s[%d]", label, n)))
		}
		return out
	case "string":
		if schema["format"] == "date-time" {
			return fmt.Sprintf("2026-%02d-%02dT%02d:00:00Z", rapid.IntRange(1, 12).Draw(t, label), rapid.IntRange(1, 28).Draw(t, label), rapid.IntRange(0, 23).Draw(t, label))
		}
		least, most := int(number(schema["minLength"], 0)), int(min(number(schema["maxLength"], 40), 40))
		return rapid.StringOfN(rapid.RuneFrom([]rune("ab-/.%ü \"'\\<\x00")), max(least, 0), most, most).Draw(t, label)
	case "integer":
		return rapid.Int64Range(int64(number(schema["minimum"], -1e9)), int64(number(schema["maximum"], 1e9))).Draw(t, label)
	case "number":
		return rapid.Float64Range(number(schema["minimum"], -1e9), number(schema["maximum"], 1e9)).Draw(t, label)
	case "boolean":
		return rapid.Bool().Draw(t, label)
	}
	return map[string]any{}
}

// wrong makes a value that the schema does not allow.
func (d document) wrong(t *rapid.T, schema map[string]any, label string) any {
	schema = d.resolve(schema)
	switch kind(schema) {
	case "object":
		whole := d.value(t, schema, label).(map[string]any)
		properties, _ := schema["properties"].(map[string]any)
		names := []string{}
		for name, property := range properties {
			if property.(map[string]any)["readOnly"] != true {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if len(names) == 0 || schema["additionalProperties"] == false && rapid.Bool().Draw(t, label+" with an unknown field") {
			whole["noSuchField"] = 1
			return whole
		}
		name := rapid.SampledFrom(names).Draw(t, label+"'s wrong field")
		whole[name] = d.wrong(t, properties[name].(map[string]any), label+"."+name)
		return whole
	case "array":
		return "no list"
	case "string":
		if schema["enum"] != nil {
			return "none of these"
		}
		if most := number(schema["maxLength"], 0); most > 0 && rapid.Bool().Draw(t, label+" too long") {
			return strings.Repeat("x", int(most)+1)
		}
		return []any{1}
	case "integer", "number":
		if most, ok := schema["maximum"]; ok && rapid.Bool().Draw(t, label+" too large") {
			return number(most, 0) + 1
		}
		return "no number"
	case "boolean":
		return "no truth"
	}
	return nil
}

// TestEveryOperationKeepsWhatTheDocumentSays calls each operation of the document
// with inputs made from the document, right ones and wrong ones. Every answer
// must have a status, a media type and a body that the document announces, wrong
// inputs must be refused, and nothing may be the server's fault.
func TestEveryOperationKeepsWhatTheDocumentSays(t *testing.T) {
	s := newStage(t)
	d := readDocument(t, s)
	// Some runs, so that some keys are there.
	for _, key := range []string{"a", "b", "a%2Fb"} {
		if resp, body := s.send(t, "PUT", "/v1/runs/"+key, s.writer, `{"model":"org/contract"}`); resp.StatusCode != http.StatusOK {
			t.Fatal(body)
		}
	}
	called := map[string]int{}
	for path, item := range d.root["paths"].(map[string]any) {
		for method, operation := range item.(map[string]any) {
			operation := operation.(map[string]any)
			name := operation["operationId"].(string)
			t.Run(name, func(t *testing.T) {
				responses := operation["responses"].(map[string]any)
				schemas := map[string]*jsonschema.Schema{}
				for status, response := range responses {
					content, _ := response.(map[string]any)["content"].(map[string]any)
					for media := range content {
						schemas[status+" "+media] = d.schema(t, "paths", path, method, "responses", status, "content", media, "schema")
					}
				}
				rapid.Check(t, func(rt *rapid.T) {
					r := d.request(rt, s, path, method, operation)
					resp, body := r.send(rt)
					called[name]++
					told := fmt.Sprintf("%s %s %s\n%d %s", r.Method, r.URL, r.text, resp.StatusCode, body)
					status := strconv.Itoa(resp.StatusCode)
					if _, ok := responses[status]; !ok {
						rt.Fatalf("status %s is not in the document\n%s", status, told)
					}
					if resp.StatusCode >= 500 {
						rt.Fatalf("the server's fault\n%s", told)
					}
					if r.wrong && resp.StatusCode < 400 {
						rt.Fatalf("%s was taken\n%s", r.what, told)
					}
					if resp.StatusCode == http.StatusNotModified {
						return
					}
					media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
					schema := schemas[status+" "+media]
					if schema == nil {
						rt.Fatalf("%s with media type %s is not in the document\n%s", status, media, told)
					}
					if !strings.HasSuffix(media, "json") {
						return
					}
					documents := []string{body}
					if media == "application/x-ndjson" { // the schema is that of a line
						documents = slices.Collect(strings.Lines(body))
					}
					for _, document := range documents {
						value, err := jsonschema.UnmarshalJSON(strings.NewReader(document))
						if err != nil {
							rt.Fatalf("%v\n%s", err, told)
						}
						if err := schema.Validate(value); err != nil {
							rt.Fatalf("the answer is not as the document says: %v\n%s", err, told)
						}
					}
				})
			})
		}
	}
	if len(called) < 12 {
		t.Errorf("only %d operations were called: %v", len(called), called)
	}
	t.Logf("calls by operation: %v", called)
}

// made is a request made from the document.
type made struct {
	*http.Request
	text, what string
	wrong      bool
}

func (m made) send(t *rapid.T) (*http.Response, string) {
	resp, err := http.DefaultClient.Do(m.Request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func (d document) request(t *rapid.T, s *stage, path, method string, operation map[string]any) made {
	m := made{}
	parameters, _ := operation["parameters"].([]any)
	content, _ := operation["requestBody"].(map[string]any)
	// One thing at most is wrong.
	faults := []string{""}
	for _, p := range parameters {
		p := p.(map[string]any)
		schema := d.resolve(p["schema"].(map[string]any))
		bounded := kind(schema) != "string" || schema["enum"] != nil || schema["maxLength"] != nil
		if in := p["in"]; in == "query" && bounded {
			faults = append(faults, p["name"].(string))
		}
	}
	var body map[string]any
	if content != nil {
		body = content["content"].(map[string]any)["application/json"].(map[string]any)["schema"].(map[string]any)
		if kind(d.resolve(body)) == "object" {
			faults = append(faults, "body")
		}
	}
	m.what = rapid.SampledFrom(faults).Draw(t, "fault")
	m.wrong = m.what != ""
	query, headers := url.Values{}, http.Header{}
	for _, p := range parameters {
		p := p.(map[string]any)
		name, schema := p["name"].(string), d.resolve(p["schema"].(map[string]any))
		var value any
		switch {
		case m.what == name:
			if value = d.wrong(t, schema, name); fmt.Sprintf("%T", value) == "[]interface {}" {
				value = strings.Repeat("x", int(number(schema["maxLength"], 0))+1)
			}
		case p["in"] == "path" && name == "key":
			value = rapid.SampledFrom([]string{"a", "b", "a/b", "none", "UPPER", "a//b"}).Draw(t, name)
		case name == "run" && rapid.Bool().Draw(t, "run that is there"):
			value = "a"
		case p["required"] == true || rapid.Bool().Draw(t, name+"?"):
			value = d.value(t, schema, name)
		default:
			continue
		}
		if items, ok := value.([]any); ok {
			for _, item := range items {
				query.Add(name, fmt.Sprint(item))
			}
			continue
		}
		text := fmt.Sprint(value)
		switch p["in"] {
		case "path":
			if text == "." || text == ".." || strings.TrimSpace(text) == "" {
				text = "u"
			}
			path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(text))
		case "query":
			query.Set(name, text)
		case "header":
			headers.Set(name, strings.Map(func(r rune) rune {
				if r < ' ' || r > '~' {
					return '_'
				}
				return r
			}, text))
		}
	}
	if body != nil {
		var value any
		switch {
		case m.what == "body":
			value = d.wrong(t, body, "body")
		case kind(d.resolve(body)) == "object":
			value = d.value(t, body, "body")
		default: // a file of any tool
			value = rapid.SampledFrom([]any{json.RawMessage(vllm), map[string]any{"a": 1}, []any{}, "text", json.RawMessage(`{"hw":"h","model":"m","conc":1,"tput_per_gpu":2}`)}).Draw(t, "file")
		}
		text, err := json.Marshal(value)
		if raw, ok := value.(json.RawMessage); ok {
			text, err = raw, nil // with its NaN
		}
		if err != nil {
			t.Fatal(err)
		}
		m.text = string(text)
	}
	address := s.url + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(t.Context(), strings.ToUpper(method), address, bytes.NewReader([]byte(m.text)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = headers
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if operation["security"] != nil {
		req.Header.Set("Authorization", "Bearer "+s.admin)
	}
	m.Request = req
	return m
}
