#!/bin/sh
# Prints the path of a CPython 3.11 on Linux x86_64, the one the lock files are made for.
# $PYTHON is asked first and, when set, is the only candidate.
want='import platform, struct, sys
ok = sys.version_info[:2] == (3, 11) and sys.implementation.name == "cpython" and struct.calcsize("P") == 8
sys.exit(not ok) if not ok else print(getattr(sys, "_base_executable", sys.executable))'

if [ "$(uname -s)/$(uname -m)" != "Linux/x86_64" ]; then
  echo "make setup: the lock files in requirements/ are for Linux x86_64; this is $(uname -s)/$(uname -m)." >&2
  echo "  Use a Linux x86_64 machine or container, or make lock files for this platform in tools/lock.sh." >&2
  exit 1
fi

# A pyenv shim of a version that is not active exists but fails, so each candidate is run, not just found.
set -- python3.11 python3 python /usr/bin/python3.11 /usr/local/bin/python3.11 \
  "$HOME"/.pyenv/versions/3.11*/bin/python3.11 "$HOME"/.local/share/uv/python/cpython-3.11*/bin/python3.11 \
  /opt/python/cp311-cp311/bin/python3.11
if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; fi

seen=""
for candidate in "$@"; do
  command -v "$candidate" >/dev/null 2>&1 || continue
  if "$candidate" -c "$want" 2>/dev/null; then exit 0; fi
  version=$("$candidate" -c 'import platform; print(platform.python_implementation(), platform.python_version())' 2>/dev/null) || continue
  seen="$seen
    $candidate: $version"
done

{
  echo "make setup: no CPython 3.11 (64 bit) was found; the lock files in requirements/ are made for it."
  echo "  Found:${seen:- no Python at all}"
  echo "  Install Python 3.11 (Debian and Ubuntu: python3.11 and python3.11-venv), or name one:"
  echo "    make setup PYTHON=/path/to/python3.11"
} >&2
exit 1
