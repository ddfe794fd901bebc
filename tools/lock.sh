#!/usr/bin/env bash
# Writes requirements/*.lock anew. Versions already locked stay, unless UPGRADE=1 is given or the inputs
# ask for others. Usage: tools/lock.sh PATH_OF_UV
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$1

compile() { # compile OUTPUT INPUT... : one lock file, with hashes and without any URL
  local output=$1
  shift
  "$uv" pip compile "$@" --override requirements/overrides.txt --python-version 3.11 \
    --python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-index-url --no-annotate \
    --custom-compile-command "make lock" ${UPGRADE:+--upgrade} --quiet --output-file "$output"
}

compile requirements/installer.lock requirements/installer.in
compile requirements/build.lock requirements/build.in
compile requirements/clients.lock requirements/clients.in
# The gateway we are measured beside.
compile requirements/gateway.lock requirements/gateway.in
compile requirements/serving.lock pyproject.toml --extra serving --extra evaluation --extra operator \
  requirements/serving.in
compile requirements/compression.lock pyproject.toml --extra compression requirements/compression.in
# What the images hold: the same versions as in the environments, without what only the checks need.
compile requirements/image-operator.lock pyproject.toml --extra operator \
  --constraint requirements/serving.lock
compile requirements/image-server.lock pyproject.toml --extra serving --extra evaluation \
  requirements/image-server.in --constraint requirements/serving.lock
compile requirements/image-compressor.lock pyproject.toml --extra compression \
  --constraint requirements/compression.lock
# A layer of its own, which both share. Its pins are the others'.
compile requirements/image-torch.lock requirements/image-torch.in --constraint requirements/image-server.lock
