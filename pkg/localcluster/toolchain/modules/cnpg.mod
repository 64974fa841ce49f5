module spotbench.dev/toolchain/cnpg

go 1.25.0

require github.com/cloudnative-pg/cloudnative-pg v1.26.0
