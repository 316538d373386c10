# The program in an image that holds nothing else: `docker build -t aperio .`
FROM rust:1.95-bookworm AS build
# For librdkafka, which is compiled along.
RUN apt-get update && apt-get install -y --no-install-recommends cmake
COPY . /src
RUN cd /src && cargo build --locked --release

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/aperio /usr/local/bin/
ENTRYPOINT ["aperio"]
