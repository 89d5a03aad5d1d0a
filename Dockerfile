# Both programs on a slim Debian. The toolchain stays in the first stage; its
# version is `rust-version` of Cargo.toml, and a test compares.
FROM rust:1.95-slim-bookworm AS build
# librdkafka is C and C++, built by make.
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential pkg-config zlib1g-dev libssl-dev libcurl4-openssl-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The target directory is a cache and gone after this step: hence the copy.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bins --features outpour-producer/relay -p outpour-producer -p outpour-consumer \
    && install -D -t /out target/release/outpour-relay target/release/outpour-consumer

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libcurl4 libssl3 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/outpour --create-home outpour
COPY --from=build /out/ /usr/local/bin/
# Fails here rather than at the first start if a shared library is missing.
RUN outpour-relay --version && outpour-consumer --version
USER outpour
# An outpour.toml mounted here is found without --config.
WORKDIR /var/lib/outpour
CMD ["outpour-relay", "--help"]
