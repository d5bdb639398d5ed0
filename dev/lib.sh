# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by who sources it
# What every script in dev/ shares: where things are, and how a background program is started, watched and stopped.
#
# Sourced, never run. Reads REPORT_CACHE. Gives:
#   repository cache bin target version      paths, and the workspace's version
#   say, fail                                a line on standard error; the same and exit 1
#   wait_for SECONDS COMMAND...              run COMMAND until it succeeds, at most so long
#   step WORDS COMMAND..., summary           a numbered step with its time, and all of them in one line
#   record PID_FILE PID, alive, stop_process a program's pid together with its start time, so that only what these
#                                            scripts started is ever signalled, never a stranger with a used-again pid

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${REPORT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/report-operator}
bin=$cache/bin
target=${CARGO_TARGET_DIR:-$cache/target}
version=$(awk -F'"' '/^\[workspace.package\]/ {inside = 1} inside && /^version/ {print $2; exit}' "$repository/Cargo.toml")
export REPORT_CACHE=$cache CARGO_TARGET_DIR=$target PATH=$bin:$PATH

readonly POLL_SECONDS=0.1
readonly STOP_SECONDS=8 # then a program is killed

say() { echo "$(basename "$0"): $*" >&2; }
fail() { say "$@"; exit 1; }

wait_for() { # SECONDS COMMAND...
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      say "gave up waiting for: $*"
      return 1
    fi
    sleep "$POLL_SECONDS"
  done
}

# A process's start time in clock ticks since boot: its pid's second half, since a pid alone may be used again.
started_at() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  [[ ${stat##*) } != Z* ]] || return 1 # a zombie has ended
  awk '{print $20}' <<<"${stat##*) }"
}

record() { # PID_FILE PID
  echo "$2 $(started_at "$2")" >"$1"
}

alive() { # PID_FILE
  local pid start
  { read -r pid start <"$1"; } 2>/dev/null || return 1
  [[ -n $start && $(started_at "$pid") == "$start" ]]
}

gone() { ! alive "$1"; }

stop_process() { # PID_FILE [SIGNAL]
  local pid
  if alive "$1"; then
    read -r pid _ <"$1"
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    if ! wait_for "$STOP_SECONDS" gone "$1"; then
      say "killing $(basename "$1"), pid $pid"
      kill -KILL "$pid" 2>/dev/null || true
      wait_for 5 gone "$1" || return 1
    fi
  fi
  rm -f "$1"
}

# The module version that a Go program was built from; nothing when it is not there.
built_version() { # BINARY
  [[ ! -x $1 ]] || go version -m "$1" | awk '$1 == "mod" {print $3}'
}

# step WORDS COMMAND...: a numbered line, the command, and how long it took; kept for `summary`.
# The command runs as it is, not in a condition, so that `set -e` holds inside of it.
steps=()
step() {
  local title=$1 start=$SECONDS
  shift
  current_step="$((${#steps[@]} + 1)) $title"
  echo "==> $current_step"
  "$@"
  steps+=("$title $((SECONDS - start)) s")
  current_step=
  echo "    $((SECONDS - start)) s, $SECONDS s in all"
}

summary() {
  local line
  line=$(printf '%s, ' ${steps[@]+"${steps[@]}"})
  if [[ -n ${current_step:-} ]]; then
    echo "failed at step $current_step; before it: ${line%, }"
  else
    echo "${#steps[@]} steps in $SECONDS s: ${line%, }"
  fi
}
