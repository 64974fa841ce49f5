// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// parseMLPerf reads LoadGen's mlperf_log_summary.txt: lines "name : value", in
// sections. Its times are nanoseconds. It has neither the model nor the number
// of samples. Accuracy runs have no performance and are refused.
func parseMLPerf(file string, data []byte) (Parsed, error) {
	results, parameters, err := mlperfLines(file, data)
	if err != nil {
		return Parsed{}, err
	}
	var errs []error
	r := &reader{file: file, fields: results, errs: &errs}
	if !r.needs("MLPerf LoadGen", "SUT name", "Scenario", "Mode", "Result is") {
		return Parsed{}, errors.Join(errs...)
	}
	scenario, mode := r.text("Scenario"), r.text("Mode")
	switch mode {
	case "PerformanceOnly", "Performance":
	default:
		return Parsed{}, &UnsupportedError{File: file, Format: fmt.Sprintf("an MLPerf LoadGen run of mode %q", mode), Instead: "import the summary of the run of mode PerformanceOnly"}
	}
	verdict := r.text("Result is")
	if verdict != "VALID" && verdict != "INVALID" {
		r.wrong("Result is", "%q is no verdict; VALID or INVALID belongs here", verdict)
	}
	m := metrics{}
	result := catalog.Result{
		Tool: "mlperf loadgen", Unknown: []string{requests, completed, failed, duration, inputTokens, outputTokens},
		Settings: map[string]string{"scenario": scenario, "mode": mode, "sut": r.text("SUT name"), "validity": verdict},
		TTFT:     r.mlperf("First Token latency", "first token latency"), E2EL: r.mlperf("latency", "latency"),
	}
	if result.TPOT = r.mlperf("Time per Output Token", "time to output token"); result.TPOT == nil || result.TPOT.MeanMs == nil {
		// Older versions name the mean otherwise than the percentiles.
		if older := r.mlperf("Time to Output Token", "time to output token"); older != nil {
			result.TPOT = older
		}
	}
	switch scenario {
	case "Offline":
		result.RequestThroughput, result.OutputThroughput = r.mlperfNumber("Samples per second"), r.mlperfNumber("Tokens per second")
	case "Server":
		result.RequestThroughput, result.OutputThroughput = r.mlperfNumber("Completed samples per second"), r.mlperfNumber("Completed tokens per second")
		result.RequestRate = (&reader{file: file, fields: parameters, errs: &errs}).mlperfNumber("target_qps")
		m.set("scheduled_samples_per_second", r.mlperfNumber("Scheduled samples per second"))
	case "SingleStream", "MultiStream", "Interactive":
		result.RequestThroughput, result.OutputThroughput = r.mlperfNumber("Completed samples per second"), r.mlperfNumber("Completed tokens per second")
	default:
		r.wrong("Scenario", "%q is unknown; Offline, Server, SingleStream, MultiStream or Interactive belongs here", scenario)
	}
	result.Metrics = m.result()
	for name, value := range parameters {
		var text string
		if json.Unmarshal(value.raw, &text) == nil && len(result.Settings) < 100 {
			result.Settings[clean(name)] = clean(text)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Parsed{}, err
	}
	return Parsed{Format: MLPerf, Results: []catalog.Result{result}}, nil
}

// mlperfLines splits the file into the results and the parameters of the test.
func mlperfLines(file string, data []byte) (results, parameters map[string]field, err error) {
	results, parameters = map[string]field{}, map[string]field{}
	into, summaries, offset := results, 0, int64(0)
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if n := bytes.IndexByte(data, '\n'); n >= 0 {
			return n + 1, data[:n+1], nil
		}
		if atEOF && len(data) > 0 {
			return len(data), data, nil
		}
		return 0, nil, nil
	})
	for lines.Scan() {
		at := offset
		offset += int64(len(lines.Bytes()))
		line := strings.TrimSpace(lines.Text())
		switch line {
		case "MLPerf Results Summary":
			if summaries++; summaries > 1 {
				return nil, nil, &FileError{File: file, Offset: at, Problem: "it has several summaries; put each in a file of its own"}
			}
			continue
		case "Test Parameters Used":
			into = parameters
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.HasPrefix(line, "*") {
			continue
		}
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, nil, &FileError{File: file, Offset: at, Problem: err.Error()}
		}
		if _, twice := into[name]; twice && value != "" && into[name].offset != at && string(into[name].raw) != string(raw) {
			return nil, nil, &FileError{File: file, Field: name, Offset: at, Problem: "it is there twice with different values, so that neither can be believed"}
		}
		if into[name] = (field{raw: raw, offset: at}); len(into) > maxFields {
			return nil, nil, &FileError{File: file, Offset: at, Problem: fmt.Sprintf("it has more than %d lines, which LoadGen does not write", maxFields)}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, nil, &FileError{File: file, Offset: offset, Problem: fmt.Sprintf("a line is too long: %v; import the file as LoadGen wrote it", err)}
	}
	return results, parameters, nil
}

// mlperfNumber is a number that stands as text.
func (r *reader) mlperfNumber(name string) *float64 {
	if r.missing(name) {
		return nil
	}
	var text string
	if err := json.Unmarshal(r.fields[name].raw, &text); err != nil || text == "" {
		return nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !json.Valid([]byte(text)) || v < 0 {
		r.wrong(name, "%q is no positive number", clean(text))
		return nil
	}
	return &v
}

// mlperf reads a distribution in nanoseconds.
func (r *reader) mlperf(mean, percentile string) *catalog.Latency {
	var l latency
	ns := func(name, statistic string) {
		if v := r.mlperfNumber(name + " (ns)"); v != nil {
			ms := *v * nanoseconds
			l.set(statistic, &ms)
		}
	}
	ns("Mean "+mean, "mean")
	ns("Min "+mean, "min")
	ns("Max "+mean, "max")
	for _, p := range []string{"50.00", "90.00", "95.00", "97.00", "99.00", "99.90"} {
		statistic := "p" + strings.TrimSuffix(strings.TrimRight(p, "0"), ".")
		if p == "50.00" {
			statistic = "median"
		}
		ns(p+" percentile "+percentile, statistic)
	}
	return l.result()
}
