#!/usr/bin/env bash
# Brings what a bare Debian lacks: `prerequisites.sh uv`, `postgresql`, `npm`, `chromium` or `gcc`.
set -euo pipefail
cd "$(dirname "$0")/.."

UV_VERSION=0.13.9

apt_install() {
  local run=()
  if [ "$(id -u)" != 0 ]; then
    run=(sudo)
    command -v sudo >/dev/null || missing "$1"
  fi
  command -v apt-get >/dev/null || missing "$1"
  echo "Installing Debian's $1 ..." >&2
  local log
  log=$(mktemp)
  if ! { "${run[@]}" apt-get update && "${run[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes --no-install-recommends "$1"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    missing "$1"
  fi
  rm -f "$log"
}

missing() {
  echo "make: $1 is missing and could not be installed here. Install it as root:" \
    "apt-get update && apt-get install $1" >&2
  exit 1
}

case "${1:-}" in
  uv)
    python=${PYTHON:-python3}
    command -v "$python" >/dev/null || missing python3
    "$python" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
    "$python" -m venv .cache/uv
    .cache/uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
    ;;
  postgresql)
    # Debian keeps initdb outside of PATH. The packaged cluster that apt may start is left alone.
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || apt_install postgresql
    ;;
  npm)
    command -v npm >/dev/null || apt_install npm
    ;;
  chromium)
    # Fonts are only recommended by it, and without any a page has no text to measure.
    command -v chromium >/dev/null || { apt_install chromium && apt_install fonts-dejavu-core; }
    ;;
  gcc)
    command -v gcc >/dev/null && [ -e /usr/include/stdio.h ] || { apt_install gcc && apt_install libc6-dev; }
    ;;
  *)
    echo "usage: $0 uv|postgresql|npm|chromium|gcc" >&2
    exit 2
    ;;
esac
