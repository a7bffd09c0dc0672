#!/usr/bin/env bash
# Write requirements.lock and requirements-dev.lock anew: all packages with versions and hashes, for Python 3.11 on Linux x86_64 with torch for CPUs.
#   bash scripts/lock_requirements.sh          needs uv, and an index or folder that has torch for CPUs: PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp requirements-dev.txt "$work"
sed 's/^\(torch==[0-9.]*\)$/\1+cpu/' requirements.txt > "$work/requirements.txt"
options=(--quiet --generate-hashes --no-annotate --no-emit-find-links --no-emit-index-url --no-header)
options+=(--python-version 3.11 --python-platform x86_64-manylinux_2_28 --index-strategy unsafe-best-match)
[ -z "${PIP_FIND_LINKS:-}" ] || options+=(--find-links "$PIP_FIND_LINKS")
[ -z "${PIP_EXTRA_INDEX_URL:-}" ] || options+=(--extra-index-url "$PIP_EXTRA_INDEX_URL")
uv pip compile "${options[@]}" "$work/requirements-dev.txt" -o "$work/requirements-dev.lock"
uv pip compile "${options[@]}" "$work/requirements.txt" -c "$work/requirements-dev.lock" -o "$work/requirements.lock"
mv "$work"/*.lock .
