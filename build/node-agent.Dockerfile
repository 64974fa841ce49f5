# SPDX-License-Identifier: Apache-2.0
# For those who build images with an engine: docker build -f build/node-agent.Dockerfile .
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=1 go build -trimpath -ldflags "-s -w -X github.com/spotbench/spotbench/pkg/version.release=$VERSION" -o /node-agent ./cmd/node-agent

# The C library, which NVIDIA's own libraries of the node are loaded with.
FROM gcr.io/distroless/base-debian12
COPY --from=build /node-agent /usr/bin/node-agent
# Root: it reads volumes of pods of all users and the node's GPUs.
USER 0:0
ENTRYPOINT ["/usr/bin/node-agent"]
