module spotbench.dev/toolchain/argo-workflows

go 1.25.0

require github.com/argoproj/argo-workflows/v3 v3.7.4

replace github.com/olekukonko/tablewriter => github.com/olekukonko/tablewriter v0.0.5
