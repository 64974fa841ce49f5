# SPDX-License-Identifier: Apache-2.0
# For those who build images with an engine: docker build -f build/bench-runner.Dockerfile .
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/spotbench/spotbench/pkg/version.release=$VERSION" -o /bench-runner ./cmd/bench-runner

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /bench-runner /usr/bin/bench-runner
USER 65532:65532
ENTRYPOINT ["/usr/bin/bench-runner"]
