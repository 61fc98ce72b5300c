#!/bin/sh
# Linux and macOS: sh install.sh [FOLDER]
here=$(cd "$(dirname "$0")" && pwd) || exit 1
for python in @COMMANDS@ python3 python; do
    if "$python" -I "$here/install.py" --fits >/dev/null 2>&1; then
        exec "$python" -I "$here/install.py" "$@"
    fi
done
for python in python3 @COMMANDS@; do
    if command -v "$python" >/dev/null; then
        exec "$python" -I "$here/install.py" "$@" # it says why it cannot
    fi
done
echo 'Not installed: no Python was found here. Install Python @PYTHONS@, then run this again.' >&2
exit 2
