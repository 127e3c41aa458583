#!/usr/bin/env bash
# Installs what pip cannot: Python's venv module, Mosquitto as the foreign broker of the tests, and a browser for them.
# As root it installs what is missing and says so; otherwise it names the command.
set -euo pipefail
python="${1:-python3}"
missing=()
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: $python is older than 3.11; set PYTHON=…" >&2; exit 1; }
"$python" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
# nkeys comes as source without C code; a compiler is not needed.
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
command -v ss >/dev/null || missing+=(iproute2)
# Tests of what browsers do, and of a store that takes line protocol, are skipped without one: wanted, not needed.
wanted=()
command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || wanted=(chromium-headless-shell)
command -v victoria-metrics >/dev/null || wanted+=(victoria-metrics)
fc-list :lang=zh 2>/dev/null | grep -q . || wanted+=(fonts-wqy-microhei)
root=0
[ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null && root=1
if [ ${#missing[@]} -gt 0 ] && [ $root -eq 0 ]; then
    echo "setup: missing: ${missing[*]}. Run: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi
if [ $root -eq 0 ] || [ $((${#missing[@]} + ${#wanted[@]})) -eq 0 ]; then exit 0; fi
export DEBIAN_FRONTEND=noninteractive
# --no-install-recommends and a policy file: Debian would otherwise start Mosquitto as a service on port 1883.
guard=/usr/sbin/policy-rc.d
made=0
install() {
    echo "setup: installing $* (apt)"
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null && echo "setup: installed $*"
}
trap '[ $made = 0 ] || rm -f "$guard"' EXIT
if [ ! -e "$guard" ]; then printf '#!/bin/sh\nexit 101\n' > "$guard"; chmod +x "$guard"; made=1; fi
if [ ${#missing[@]} -gt 0 ]; then apt-get update -qq; install "${missing[@]}"; fi
if [ ${#wanted[@]} -gt 0 ]; then
    apt-get update -qq 2>/dev/null || true
    has() { apt-cache show "$1" >/dev/null 2>&1; }
    offered=() absent=()
    for package in "${wanted[@]}"; do
        # Older distributions have the whole browser only.
        if [ "$package" = chromium-headless-shell ] && ! has "$package"; then package=chromium; fi
        if has "$package"; then offered+=("$package"); else absent+=("$package"); fi
    done
    if [ ${#offered[@]} -gt 0 ]; then install "${offered[@]}" 2>/dev/null || absent+=("${offered[@]}"); fi
    [ ${#absent[@]} -eq 0 ] || echo "setup: not installed: ${absent[*]}; their tests are skipped"
fi
