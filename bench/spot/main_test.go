// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// write writes files into a new folder and gives their paths, separated by commas.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[name]), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return strings.Join(paths, ",")
}

// recording is one of the first family: as many hours as there are letters, u up and d down.
func recording(hours, more string) string {
	values := make([]string, len(hours))
	for i, h := range hours {
		values[i] = map[rune]string{'u': "1", 'd': "0"}[h]
	}
	return fmt.Sprintf(`{"metadata":{"gap_seconds":3600},"data":[%s]%s}`, strings.Join(values, ","), more)
}

func spot(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, notes bytes.Buffer
	err = run(args, &out, &notes)
	return out.String(), notes.String(), err
}

// reports runs and reads what -json writes, which has no other keys than those of Report.
func reports(t *testing.T, args ...string) map[string]Report {
	t.Helper()
	file := filepath.Join(t.TempDir(), "out.json")
	if out, notes, err := spot(t, append(args, "-json", file)...); err != nil {
		t.Fatalf("%v\n%s%s", err, out, notes)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []Report
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	byPolicy := map[string]Report{}
	for _, r := range list {
		byPolicy[r.Policy] = r
	}
	return byPolicy
}

func TestFiguresThatCanBeDoneByHand(t *testing.T) {
	// Up for four hours, away for two, up for six. Four hours of work in eight, and no
	// time to start: spot capacity is there for it from hour 0, and from hour 2 for two
	// hours, then two of waiting, then two more.
	traces := write(t, map[string]string{"r-1a_gpu_1.json": recording("uuuudduuuuuu", "")})
	prices := write(t, map[string]string{"prices.json": `{"r-1a":1}`})
	got := reports(t, "-traces", traces, "-prices", prices, "-on-demand", "4", "-work", "4h", "-deadline", "8h", "-restart", "0s", "-windows", "0,2")
	if len(got) != len(names()) {
		t.Errorf("%d policies, want %v", len(got), names())
	}
	for policy, want := range map[string]Report{
		"on-demand": {Policy: "on-demand", Windows: 2, MeanCostUSD: 16, CostsUSD: []float64{16, 16}, BoundPercent: 75},
		"optimum":   {Policy: "optimum", Windows: 2, MeanCostUSD: 4, CostsUSD: []float64{4, 4}, SavedPercent: 75, BoundPercent: 75, Interruptions: 1},
		"ours":      {Policy: "ours", Windows: 2, MeanCostUSD: 4, CostsUSD: []float64{4, 4}, SavedPercent: 75, BoundPercent: 75, Interruptions: 1},
	} {
		if r := got[policy]; fmt.Sprintf("%+v", r) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s: %+v,\nwant %+v", policy, r, want)
		}
	}
}

func TestTheJSONHasExactlyTheDocumentedKeys(t *testing.T) {
	traces := write(t, map[string]string{"r-1a.json": recording("uuuuuuuuuu", `,"prices":[1,1,1,1,1,1,1,1,1,1]`)})
	out, _, err := spot(t, "-traces", traces, "-on-demand", "3", "-work", "2h", "-deadline", "4h", "-windows", "every:2h", "-policy", "greedy", "-json", "-")
	if err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	_, text, _ := strings.Cut(out, "\n[")
	if err := json.Unmarshal([]byte("["+text), &list); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	want := []string{"boundPercent", "costsUSD", "deadlineMisses", "interruptions", "meanCostUSD", "policy", "savedPercent", "windows", "workLostHours"}
	if got := slices.Sorted(maps.Keys(list[0])); len(list) != 1 || !slices.Equal(got, want) {
		t.Errorf("%d policies with keys %v, want one with %v", len(list), got, want)
	}
	if list[0]["windows"] != 4.0 || len(list[0]["costsUSD"].([]any)) != 4 { // from 0, 2, 4 and 6 to 4 hours later
		t.Errorf("windows %v, want four", list[0])
	}
}

func TestBothFamiliesAndEveryPlaceForPricesGiveTheSame(t *testing.T) {
	up, flipped := "uuuuddduuuuuuuuu", "dddduuuddddddddd"
	flat := strings.TrimSuffix(strings.Repeat("1.5,", len(up)), ",")
	common := []string{"-on-demand", "3", "-work", "4h", "-deadline", "8h", "-restart", "30m", "-windows", "0"}
	var first string
	for name, args := range map[string][]string{
		"prices of the trace":                 {"-traces", write(t, map[string]string{"r-1a_x.json": recording(up, `,"prices":[`+flat+`]`)})},
		"a price file by the trace's name":    {"-traces", write(t, map[string]string{"r-1a_x.json": recording(up, "")}), "-prices", write(t, map[string]string{"p.json": `{"r-1a_x":[` + flat + `]}`})},
		"a price file by zone, one number":    {"-traces", write(t, map[string]string{"r-1a_x.json": recording(up, "")}), "-prices", write(t, map[string]string{"p.json": `{"r-1a":1.5}`})},
		"the simulators' family, as a folder": {"-traces", write(t, map[string]string{"r-1a_x/full.json": strings.Replace(recording(flipped, ""), "3600", `3600,"price_info":{"price":1.5,"on_demand_price":9}`, 1)})},
		"the same by -polarity":               {"-polarity", "preempted", "-traces", write(t, map[string]string{"r-1a_x.json": recording(flipped, `,"prices":[`+flat+`]`)})},
		"counts of instances": {"-instances", "2", "-traces", write(t, map[string]string{"r-1a_x.json": strings.ReplaceAll(recording(up, ""), "1", "2")}),
			"-prices", write(t, map[string]string{"p.json": `{"r-1a":1.5}`})},
	} {
		out, _, err := spot(t, append(args, common...)...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if first == "" {
			first = out
		}
		if out != first {
			t.Errorf("%s:\n%s\nwant\n%s", name, out, first)
		}
	}
}

func TestSpotCapacityThatIsNeverCheaperIsNeverTakenAndSavesNothing(t *testing.T) {
	traces := write(t, map[string]string{"r-1a.json": recording("uuuuuuuuuuuu", ""), "r-1b.json": recording("dddddddddddd", "")})
	got := reports(t, "-traces", traces, "-prices", write(t, map[string]string{"p.json": `{"r-1a":5,"r-1b":1}`}), "-on-demand", "4", "-work", "4h", "-deadline", "6h", "-windows", "0")
	if r := got["ours"]; r.CostsUSD[0] != 20 || r.SavedPercent != 0 || r.DeadlineMisses != 0 { // four hours and a start, in whole ticks
		t.Errorf("ours %+v, want the cost on demand", r)
	}
	dear := reports(t, "-traces", write(t, map[string]string{"r-1a.json": recording("uuuuuuuuuuuu", "")}), "-prices", write(t, map[string]string{"p.json": `{"r-1a":5}`}),
		"-on-demand", "4", "-work", "4h", "-deadline", "6h", "-windows", "0")
	if r := dear["ours"]; r.BoundPercent != 0 || r.SavedPercent != 0 {
		t.Errorf("ours %+v, want nothing to save and nothing saved", r)
	}
}

func TestFilesThatDoNotFitTogetherAreSaid(t *testing.T) {
	traces := write(t, map[string]string{"r-1a.json": recording("uuuuuuuuuuuu", ""), "r-1b.json": recording("uuuuuuuu", "")})
	prices := write(t, map[string]string{"p.json": `{"r-1a":[1,1,1,1,1,1,1,1,1,1,1,1],"r-1b":[1,1,1,1,1,1,1,1,1]}`})
	_, notes, err := spot(t, "-traces", traces, "-prices", prices, "-on-demand", "4", "-work", "2h", "-deadline", "4h", "-windows", "0")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"note: trace r-1b has 8 ticks and 9 prices", "note: the traces are of different lengths; the first 8 ticks (8.0 h)"} {
		if !strings.Contains(notes, want) {
			t.Errorf("notes %q, want one with %q", notes, want)
		}
	}
}

func TestAWrongFlagNamesItselfItsValueAndARightOne(t *testing.T) {
	good := write(t, map[string]string{"r-1a.json": recording("uuuuuuuuuuuu", `,"prices":[1,1,1,1,1,1,1,1,1,1,1,1]`)})
	other := write(t, map[string]string{"r-1b.json": strings.Replace(recording("uu", `,"prices":[1,1]`), "3600", "60", 1)})
	bare := write(t, map[string]string{"r-1c.json": recording("uu", "")})
	for want, args := range map[string][]string{
		"-traces is missing": {},
		"no such file":       {"-traces", "nowhere.json"},
		"-deadline is 5h0m0s, but -work and one -restart take 5h3m0s: not even on-demand": {"-traces", good, "-work", "5h", "-deadline", "5h"},
		"-work is -1h0m0s":                        {"-traces", good, "-work", "-1h"},
		"-restart is -1s":                         {"-traces", good, "-restart", "-1s"},
		"-move-cost is -1":                        {"-traces", good, "-move-cost", "-1"},
		"-on-demand is -3":                        {"-traces", good, "-on-demand", "-3"},
		"-on-demand is missing and trace r-1a":    {"-traces", good, "-work", "1h", "-deadline", "2h"},
		`-policy names "best"; write all or some`: {"-traces", good, "-policy", "ours,best"},
		`-polarity is "up"`:                       {"-traces", good, "-polarity", "up"},
		`-windows is "every:x"`:                   {"-traces", good, "-on-demand", "3", "-work", "1h", "-deadline", "2h", "-windows", "every:x"},
		`-windows has "soon"`:                     {"-traces", good, "-on-demand", "3", "-work", "1h", "-deadline", "2h", "-windows", "0,soon"},
		"-windows has 11: the recording ends":     {"-traces", good, "-on-demand", "3", "-work", "1h", "-deadline", "2h", "-windows", "11"},
		"the recording is shorter than the":       {"-traces", good, "-on-demand", "3", "-work", "20h", "-deadline", "30h"},
		"different times between ticks":           {"-traces", good + "," + other, "-on-demand", "3", "-work", "1h", "-deadline", "2h"},
		`no spot prices for trace r-1c; name a`:   {"-traces", bare, "-on-demand", "3", "-work", "1h", "-deadline", "2h"},
		"0 instances wanted; ask for at least 1":  {"-traces", good, "-instances", "0"},
		`invalid value "ten" for flag -work`:      {"-traces", good, "-work", "ten"},
	} {
		out, _, err := spot(t, args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want one with %q", args, err, want)
		}
		if out != "" {
			t.Errorf("%v: figures beside an error:\n%s", args, out)
		}
	}
}

func TestTimelinesAreDrawnAsSVGAndPNG(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "figures")
	traces := write(t, map[string]string{"r-1a.json": recording("uuuudduuuuuu", ""), "r-2a.json": recording("dddduuuuuuuu", "")})
	if _, _, err := spot(t, "-traces", traces, "-prices", write(t, map[string]string{"p.json": `{"r-1a":1,"r-2a":1.2}`}),
		"-on-demand", "4", "-work", "4h", "-deadline", "8h", "-windows", "0,3", "-draw", dir); err != nil {
		t.Fatal(err)
	}
	for _, window := range []string{"window-001", "window-002"} {
		image, err := os.Open(filepath.Join(dir, window+".png"))
		if err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(image)
		if err != nil || picture.Bounds().Dx() < 800 {
			t.Errorf("%s.png: %v", window, err)
		}
		image.Close()
		data, err := os.ReadFile(filepath.Join(dir, window+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		for decoder := xml.NewDecoder(bytes.NewReader(data)); ; {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s.svg: %v", window, err)
			}
		}
		for _, label := range []string{"r-1a", "r-2a", "ours", "optimum"} {
			if !bytes.Contains(data, []byte(label)) {
				t.Errorf("%s.svg has no %s", window, label)
			}
		}
	}
}
