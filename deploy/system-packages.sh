#!/usr/bin/env bash
# Installs what pip cannot: Python's venv module, and Mosquitto as the foreign broker of the tests.
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
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "setup: missing: ${missing[*]}. Run: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "setup: installing ${missing[*]} (apt)"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# --no-install-recommends and a policy file: Debian would otherwise start Mosquitto as a service on port 1883.
guard=/usr/sbin/policy-rc.d
made=0
if [ ! -e "$guard" ]; then printf '#!/bin/sh\nexit 101\n' > "$guard"; chmod +x "$guard"; made=1; fi
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || { [ $made = 1 ] && rm -f "$guard"; exit 1; }
[ $made = 1 ] && rm -f "$guard"
echo "setup: installed ${missing[*]}"
