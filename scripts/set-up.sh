#!/bin/sh
# Makes the virtual environment $1 with the tested versions, and on Debian and Ubuntu installs the
# system libraries that napari needs on a virtual display, and on Debian the browser that the tests
# open the report in.
set -eu
venv=$1

packages="xvfb xauth libxcb-icccm4 libxcb-keysyms1 libxcb-cursor0 libxcb-image0 libxcb-render-util0
libxcb-randr0 libxcb-shape0 libxcb-xkb1 libxkbcommon-x11-0 libegl1 libgl1 libgl1-mesa-dri
libdbus-1-3 libfontconfig1"
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    missing=""
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "install ok installed" ||
            missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        if [ "$(id -u)" = 0 ]; then
            apt-get update && apt-get install -y --no-install-recommends $missing
        elif sudo -n true 2>/dev/null; then
            sudo -n apt-get update && sudo -n apt-get install -y --no-install-recommends $missing
        else
            echo "System libraries are missing. Install them, then run this again:"
            echo "  sudo apt-get update && sudo apt-get install -y$missing"
            exit 1
        fi
    fi
fi

# Without a browser its tests are skipped. Ubuntu's package is a stub of a snap, which reads no
# temporary folder: that one is left out.
has_browser() {
    for name in chromium google-chrome google-chrome-stable microsoft-edge; do
        command -v "$name" >/dev/null && return 0
    done
    return 1
}
offers_chromium() {
    case "$(apt-cache policy chromium 2>/dev/null | sed -n 's/^ *Candidate: //p')" in
    "" | "(none)" | *snap*) return 1 ;;
    esac
}
if command -v apt-get >/dev/null && ! has_browser; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    if $as_root true 2>/dev/null; then
        offers_chromium || $as_root apt-get update || true
        if offers_chromium; then
            $as_root apt-get install -y --no-install-recommends chromium || true
        fi
    fi
fi

python=""
for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    if [ -n "$candidate" ] && "$candidate" -c \
        'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.11, 3.12 or 3.13 is needed and was not found. Name one: make PYTHON=/path/to/python"
    exit 1
fi

"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
