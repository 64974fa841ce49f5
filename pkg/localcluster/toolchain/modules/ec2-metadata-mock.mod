module spotbench.dev/toolchain/aemm

go 1.25.0

require github.com/aws/amazon-ec2-metadata-mock v1.13.0
