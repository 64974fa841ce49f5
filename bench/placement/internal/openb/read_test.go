// SPDX-License-Identifier: Apache-2.0

package openb_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
)

const podHeader = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"

func TestPodsAreReadSortedAndWithTheExperimentsRules(t *testing.T) {
	pods, err := openb.ReadPods(strings.NewReader(podHeader +
		"c,4000,1024,8,1000,\n" +
		"b,0,512,1,460,V100M32|V100M16|V100M32\n" + // no CPU counts as a tenth of a core; a model once
		"a,2000,256,0,1000,T4\n" + // no GPU, so no share and no model either
		"d,1000,0,1,5000,T4\n")) // no more than all of a GPU
	if err != nil {
		t.Fatal(err)
	}
	want := []openb.Pod{
		{Name: "a", CPUMilli: 2000, MemoryMiB: 256},
		{Name: "b", CPUMilli: 100, MemoryMiB: 512, GPUs: 1, GPUMilli: 460, Models: []string{"V100M16", "V100M32"}},
		{Name: "c", CPUMilli: 4000, MemoryMiB: 1024, GPUs: 8, GPUMilli: 1000},
		{Name: "d", CPUMilli: 1000, GPUs: 1, GPUMilli: 1000, Models: []string{"T4"}},
	}
	if diff := cmp.Diff(want, pods); diff != "" {
		t.Error(diff)
	}
	for i, milli := range []int64{0, 460, 8000, 1000} {
		if got := pods[i].TotalGPUMilli(); got != milli {
			t.Errorf("%s asks for %d GPU milli, want %d", pods[i].Name, got, milli)
		}
	}
	if whole := openb.WholeGPUs(pods); whole[1].GPUMilli != 1000 || whole[0].GPUMilli != 0 || pods[1].GPUMilli != 460 {
		t.Errorf("as whole GPUs: %+v; the pods given must stay", whole)
	}
}

func TestWhatIsWrongInAFileIsNamed(t *testing.T) {
	for want, text := range map[string]string{
		"pod list: header: EOF": "",
		"pod list: column num_gpu is missing, have name, cpu_milli, memory_mib, gpu_milli":       "name,cpu_milli,memory_mib,gpu_milli\n",
		`pod list: line 2: cpu_milli is "-1", want a whole number from 0 to 1099511627776`:       podHeader + "a,-1,1,1,1000,\n",
		`pod list: line 3: memory_mib is "x", want a whole number from 0 to 1099511627776`:       podHeader + "a,1,1,1,1000,\nb,1,x,1,1000,\n",
		"pod list: line 2: name is empty":                                                        podHeader + ",1,1,1,1000,\n",
		"pod list: line 2: gpu_milli 500 with num_gpu 2: a share is of one GPU, write num_gpu 1": podHeader + "a,1,1,2,500,\n",
		`pod list: "a" is there twice, names must differ`:                                        podHeader + "a,1,1,1,500,\na,1,1,1,500,\n",
		"pod list: record on line 2: wrong number of fields":                                     podHeader + "a,1\n",
	} {
		if _, err := openb.ReadPods(strings.NewReader(text)); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	_, err := openb.ReadNodes(strings.NewReader("sn,cpu_milli,memory_mib,gpu,model\nn,1,1,65,T4\n"))
	if want := `node list: line 2: gpu is 65, want at most 64`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = openb.ReadNodes(strings.NewReader("sn,cpu_milli,memory_mib,gpu,model\nn,1,1,two,T4\n"))
	if want := `node list: line 2: gpu is "two", want a whole number from 0 to 1099511627776`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestArrivalsAskForTheLoadAndNoMore(t *testing.T) {
	var pods []openb.Pod
	for _, name := range []string{"a", "b", "c", "d"} {
		pods = append(pods, openb.Pod{Name: name, GPUs: 1, GPUMilli: 1000})
	}
	for load, want := range map[float64]int{
		0.5: 1, // of two GPUs, so three of the four pods are dropped
		2:   4, // all of them
		3.4: 6, // two more are drawn, a third would ask for 7 of 6.8
	} {
		arrivals, order := openb.Arrivals(pods, 2000, 3, 1, load)
		if len(arrivals) != want {
			t.Errorf("load %v: %d arrivals, want %d", load, len(arrivals), want)
		}
		slices.Sort(order)
		if diff := cmp.Diff([]int{0, 1, 2}, order); diff != "" {
			t.Errorf("load %v: nodes are not each once in the order: %s", load, diff)
		}
	}
	if arrivals, _ := openb.Arrivals([]openb.Pod{{Name: "a", CPUMilli: 1}}, 2000, 3, 1, 1); len(arrivals) != 1 {
		t.Errorf("%d arrivals of a trace without GPU pods, want its one pod", len(arrivals))
	}
}

func FuzzReadPods(f *testing.F) {
	f.Add(podHeader + "a,1000,1024,1,500,T4|G2\n")
	f.Fuzz(func(t *testing.T, text string) {
		pods, err := openb.ReadPods(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, p := range pods {
			if p.GPUMilli < 0 || p.GPUMilli > 1000 || p.CPUMilli < 1 || (p.GPUs == 0) != (p.GPUMilli == 0) || p.GPUs > 1 && p.GPUMilli != 1000 {
				t.Fatalf("%+v cannot be placed by the experiment's rules", p)
			}
		}
	})
}

func FuzzReadNodes(f *testing.F) {
	f.Add("sn,cpu_milli,memory_mib,gpu,model\nn,1000,1024,8,T4\n")
	f.Fuzz(func(t *testing.T, text string) {
		nodes, err := openb.ReadNodes(strings.NewReader(text))
		if err == nil && openb.Capacity(nodes) < 0 {
			t.Fatalf("%d GPU milli in all", openb.Capacity(nodes))
		}
	})
}
