# SPDX-License-Identifier: Apache-2.0
# For those who build images with an engine: docker build -f build/catalog-api.Dockerfile .
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/spotbench/spotbench/pkg/version.release=$VERSION" -o /catalog-api ./cmd/catalog-api

# With PostgreSQL, for a catalog that is given no database's address.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates postgresql-15 && rm -rf /var/lib/apt/lists/*
COPY --from=build /catalog-api /usr/bin/catalog-api
USER 65532:65532
ENTRYPOINT ["/usr/bin/catalog-api"]
