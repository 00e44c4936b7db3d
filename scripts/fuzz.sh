#!/usr/bin/env bash
# Builds the fuzz targets of fuzz/ and runs them: each seed once, then FUZZ_SECONDS of new inputs for each target (default 60,
# 0 = seeds alone), two targets at a time. RUN="paths cookies" takes some of them. What was found worth keeping lies in
# fuzz/corpus, and the next run begins there. Fails on a crash, and says which input it was and how to repeat it. WRITE=1
# writes what came of it into docs/hardening.md.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-60}
write=${WRITE:-0}
if [ "$write" != 0 ]; then scripts/need.sh python3; fi
at_once=2
# MiB that one target may use, and seconds that one input may take: by the clock, so more where the targets are stopped for a
# while.
memory=2048
patience=${FUZZ_PATIENCE:-10}

# The sanitizer's flag is one of nightly compilers; its runtime comes with the stable one as well.
export RUSTC_BOOTSTRAP=1
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_odr_violation=0}
host=$(rustc -vV | sed -n 's/^host: //p')
programs=fuzz/target/$host/release

read -ra targets <<<"${RUN:-$(cargo fuzz list | tr '\n' ' ')}"
for target in "${targets[@]}"; do
  [ -f "fuzz/fuzz_targets/$target.rs" ] || { echo "fuzz: there is no target $target" >&2; exit 1; }
  mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
done
# Quiet where nothing goes wrong: one target's build is all targets' build.
if [ "${#targets[@]}" -eq 1 ]; then cargo fuzz build "${targets[0]}"; else cargo fuzz build; fi

# Words that settings are made of; the examples have them all.
grep -ohE '\b[a-z0-9_]+:' conf/*.yaml | sort -u | sed 's/.*/"&"/' >fuzz/corpus/settings.dict

# fuzz TARGET OPTION... - runs one target over its corpus and seeds.
fuzz() {
  local target=$1
  shift
  local more=()
  if [ "$target" = settings ]; then more=(-dict=fuzz/corpus/settings.dict -max_len=16384 conf); fi
  "$programs/$target" -rss_limit_mb="$memory" -timeout="$patience" -print_final_stats=1 \
    -artifact_prefix="fuzz/artifacts/$target/" "$@" "fuzz/corpus/$target" "fuzz/seeds/$target" "${more[@]}" \
    >"fuzz/artifacts/$target.log" 2>&1
}

# statistic TARGET NAME
statistic() { sed -n "s/^stat::$2: *//p" "fuzz/artifacts/$1.log" | tail -n 1; }

# reached TARGET NAME - `cov`: edges of the program that were run; `ft`: edges with how often; `corp`: inputs worth keeping.
reached() { sed -nE "s/.* $2: ([0-9]+).*/\\1/p" "fuzz/artifacts/$1.log" | tail -n 1; }

# say_how TARGET - what went wrong, with which input, and how to see it again.
say_how() {
  local target=$1 input
  printf '\n== %s failed\n' "$target"
  grep -aE -m 20 'panicked at|^assertion|^  (left|right):|ERROR: |SUMMARY: ' "fuzz/artifacts/$target.log" || tail -n 20 "fuzz/artifacts/$target.log"
  input=$(sed -n 's/.*Test unit written to //p' "fuzz/artifacts/$target.log" | tail -n 1)
  if [ -n "$input" ]; then
    printf 'input: %s\n' "$input"
    head -c 2048 "$input" | od -A d -c | head -n 64
    printf 'again: RUSTC_BOOTSTRAP=1 cargo fuzz run %s %s\n' "$target" "$input"
    printf 'then:  write a unit test with it beside the code, and mend the code\n'
  else
    printf 'log: fuzz/artifacts/%s.log\n' "$target"
  fi
}

failed=()

echo 'fuzz: seeds'
for target in "${targets[@]}"; do
  # Each one that the targets are to keep from falling back, once.
  if ! fuzz "$target" -runs=0; then failed+=("$target"); fi
done

if [ "${#failed[@]}" -eq 0 ] && [ "$seconds" -gt 0 ]; then
  echo "fuzz: ${#targets[@]} targets, $seconds s each, $at_once at a time"
  begun=$(date +%s)
  outcomes=$(mktemp -d)
  trap 'rm -rf "$outcomes"' EXIT
  for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do wait -n || true; done
    (fuzz "$target" -max_total_time="$seconds" || touch "$outcomes/$target") &
  done
  wait
  for target in "${targets[@]}"; do
    result=pass
    if [ -e "$outcomes/$target" ]; then
      result=crash
      failed+=("$target")
    fi
    printf '| %s | %s | %s | %s | %s | %s | %s MiB | %s |\n' "$target" "$seconds" "$(statistic "$target" number_of_executed_units)" \
      "$(statistic "$target" average_exec_per_sec)" "$(reached "$target" cov)" "$(reached "$target" corp)" \
      "$(statistic "$target" peak_rss_mb)" "$result"
  done >fuzz/artifacts/table
  printf '\n| target | seconds | executions | a second | edges | corpus | memory | |\n|---|---|---|---|---|---|---|---|\n'
  cat fuzz/artifacts/table
  if [ "$write" != 0 ]; then
    python3 tests/hardening/fuzz.py $(($(date +%s) - begun)) "make fuzz SECONDS=$seconds${RUN:+ RUN=\"$RUN\"}" \
      "$(cargo fuzz --version)" "$(rustc --version)" <fuzz/artifacts/table
  fi
fi

for target in "${failed[@]}"; do say_how "$target"; done
[ "${#failed[@]}" -eq 0 ] || exit 1
echo 'fuzz: all passed'
