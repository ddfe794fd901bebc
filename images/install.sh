#!/bin/sh
# Installs into /opt/leanmodel, and leaves nothing else behind in the layer:
#   install.sh lock FILE    exactly what a lock file says, with the uv that requirements/installer.lock pins
#   install.sh wheel FILE   one wheel, without looking for what it requires
set -eu
target=/opt/leanmodel/bin/python
python3 -m venv /tmp/installer
case $1 in
  lock)
    /tmp/installer/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps \
      --only-binary=:all: --require-hashes --requirement /opt/locks/installer.lock
    UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never \
      /tmp/installer/bin/uv pip install --quiet --python "$target" --no-deps --require-hashes \
      --only-binary :all: --compile-bytecode --requirement "$2"
    ;;
  wheel)
    /tmp/installer/bin/pip --python "$target" install --quiet --disable-pip-version-check --no-cache-dir \
      --no-deps --no-index "$2"
    ;;
esac
rm -rf /tmp/installer
