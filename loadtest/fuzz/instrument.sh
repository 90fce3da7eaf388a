#!/bin/sh
# Stands between cargo and rustc (RUSTC_WRAPPER): counts the edges that are taken in our own code alone. What its libraries
# do with bytes is theirs to fuzz, and they need not be built anew.
case " $* " in
*" --crate-name throng "*" --crate-type lib "*)
  exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=16 -Copt-level=2 -Cdebug-assertions=on ;;
*) exec "$@" ;;
esac
