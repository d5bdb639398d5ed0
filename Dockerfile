# The images of the operator and the worker, for those who have Docker; `make images` builds the same without it.
#   docker build --target operator   -t report-operator/report-operator .
#   docker build --target etl-worker -t report-operator/etl-worker .
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --workspace --bins && \
    cp target/release/report-operator target/release/etl-worker /usr/local/bin/

FROM debian:bookworm-slim AS base
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates tzdata && rm -rf /var/lib/apt/lists/*
USER 65532:65532

FROM base AS operator
COPY --from=build /usr/local/bin/report-operator /bin/report-operator
ENTRYPOINT ["/bin/report-operator"]

FROM base AS etl-worker
COPY --from=build /usr/local/bin/etl-worker /bin/etl-worker
ENTRYPOINT ["/bin/etl-worker"]
