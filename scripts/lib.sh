# Shared set-up of scripts/demo and scripts/test: finds a Python, makes .venv in the repository and
# installs the locked dependencies there. Sourced by bash scripts that have set -euo pipefail.
#
# The dependencies are reinstalled only when the lock, the Python, the repository's place, what is to
# be compiled or the means for it changed: .venv/.kqmp-<set> holds the key of what was installed
# last. Nothing here reads from a terminal.
#
#   KQMP_PYTHON=/path/to/python3.x    makes .venv with this Python

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
venv=$root/.venv
me=${0##*/}

# Variables that would make pip or Python look elsewhere than in .venv.
unset PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_HASHES
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

# find_python: prints the path of a CPython 3.11 to 3.14 that can make virtual environments.
# A name on PATH proves nothing (version managers leave shims of absent Pythons): each is run.
find_python() {
  local name found why_not=""
  for name in ${KQMP_PYTHON:-python3.13 python3.12 python3.11 python3.14 python3 python}; do
    # By its real path: a shim could mean another Python after the next cd.
    found=$("$name" -c 'import sys
if (3, 11) <= sys.version_info[:2] <= (3, 14): print(sys._base_executable)' 2>/dev/null </dev/null) || continue
    if [ -z "$found" ]; then
      why_not+="; $name is $("$name" -V 2>&1 </dev/null)"
    elif ! "$found" -c 'import venv, ensurepip' 2>/dev/null </dev/null; then
      why_not+="; $name has no venv module (Debian, Ubuntu: apt install ${found##*/}-venv)"
    else
      printf '%s\n' "$found"
      return 0
    fi
  done
  die "needs Python 3.11 to 3.14 with its venv module and found none on PATH$why_not." \
    "Install one, or name it: KQMP_PYTHON=/path/to/python3.12 $0"
}

# run_quietly WHAT COMMAND...: shows the command's output only when it fails.
run_quietly() {
  local what=$1 output
  shift
  output=$("$@" 2>&1 </dev/null) || {
    printf '%s\n' "$output" >&2
    die "$what failed (the lines above say why)"
  }
}

venv_works() { "$venv/bin/python" -m pip --version >/dev/null 2>&1 </dev/null; }

# make_venv: leaves a working .venv, a new one if there is none or it came from another place.
make_venv() {
  local made_in python
  made_in=$(cat "$venv/.kqmp-root" 2>/dev/null) || made_in=$root
  if [ "$made_in" = "$root" ] && venv_works; then
    return 0
  fi
  python=$(find_python)
  say "making .venv with $("$python" -V 2>&1)"
  run_quietly "python -m venv" "$python" -m venv --clear "$venv"
  printf '%s\n' "$root" >"$venv/.kqmp-root"
}

# can_compile: prints what an installation needs to compile, as far as it is there, and the result.
can_compile() {
  "$venv/bin/python" -c '
import shutil, sys, sysconfig
from pathlib import Path
print(shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]))
print(Path(sysconfig.get_path("include"), "Python.h").exists())
print(Path(sys.argv[1] + sysconfig.get_config_var("EXT_SUFFIX")).exists())
' "$root/kqmp/kafka/_columns"
}

# install_key LOCK: changes with whatever makes another installation necessary.
install_key() {
  {
    "$venv/bin/python" -VV
    printf '%s\n' "$root"
    cat "$root/pyproject.toml" "$root/$1" "$root/scripts/build_columns.py" "$root"/kqmp/kafka/_*.[ch]
    can_compile
  } | sha256sum
}

# set_up runtime|dev: .venv holds kqmp (editable) with its locked dependencies; with dev, also what
# the tests and checks need.
set_up() {
  local set=$1 lock=requirements.lock key
  [ "$set" = dev ] && lock=requirements-dev.lock
  make_venv
  key=$(install_key "$lock")
  [ "$(cat "$venv/.kqmp-$set" 2>/dev/null)" = "$key" ] && return 0
  say "installing $(grep -c '^[a-zA-Z]' "$root/$lock") locked packages into .venv (once)"
  run_quietly "pip install -r $lock" \
    "$venv/bin/python" -m pip install --quiet --require-hashes -r "$root/$lock"
  run_quietly "pip install -e ." \
    "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation -e "$root"
  install_key "$lock" >"$venv/.kqmp-$set" # again: there may be a compiled module now
  # The dev set contains the other one, from the same uv.lock.
  [ "$set" = runtime ] || install_key requirements.lock >"$venv/.kqmp-runtime"
}
