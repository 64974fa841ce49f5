# SPDX-License-Identifier: Apache-2.0
# For those who build images with an engine: docker build -f build/sim-llm.Dockerfile .
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/spotbench/spotbench/pkg/version.release=$VERSION" -o /sim-llm ./cmd/sim-llm

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /sim-llm /usr/bin/sim-llm
USER 65532:65532
ENTRYPOINT ["/usr/bin/sim-llm"]
