"""Node-RED with a flow that maps six values to observations and drops what device and time say was seen before.

Its best setting: messages and the memory of duplicates in memory, QoS 0 out, one message out for each in.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from sensegate.bus.free_ports import free_port
from tests.bench.peers.process import Running

TOPIC = "out/observations"

_FUNCTION = """
const seen = context.get('seen') || new Map();
const device = msg.topic.split('/')[1];
const at = msg.payload.time;
let times = seen.get(device);
if (!times) { times = new Set(); seen.set(device, times); context.set('seen', seen); }
if (times.has(at)) return null;
times.add(at);
const time = new Date(at * 1000).toISOString();
const out = [];
for (const [name, unit] of PROPERTIES) {
  const value = msg.payload.values[name];
  if (typeof value === 'number' && isFinite(value)) out.push({device, property: name, value, unit, time, quality: 0});
}
msg.payload = out;
msg.topic = 'out/observations';
return msg;
"""
UNITS = {
    "air_temperature": "Cel",
    "relative_humidity": "%",
    "air_pressure": "hPa",
    "pm2_5": "ug/m3",
    "pm10": "ug/m3",
    "sound_level": "dB",
}


def prepare(installed: Path, directory: Path, broker: int) -> Running:
    """Return the process, to be entered once `broker` listens.

    Args:
        installed: what `setup` made.
        directory: an empty folder of its own.
        broker: port of the Mosquitto on loopback from which it reads and to which it writes.
    """
    function = f"const PROPERTIES = {json.dumps(list(UNITS.items()))};\n{_FUNCTION}"
    flow = [
        {"id": "t", "type": "tab", "label": "bench"},
        {"id": "b", "type": "mqtt-broker", "broker": "127.0.0.1", "port": broker, "clientid": "node-red",
         "protocolVersion": "4", "keepalive": "60", "cleansession": True, "autoConnect": True, "usetls": False},
        {"id": "i", "z": "t", "type": "mqtt in", "topic": "sg/+/up", "qos": "1", "datatype": "json", "broker": "b",
         "inputs": 0, "wires": [["f"]]},
        {"id": "f", "z": "t", "type": "function", "func": function, "outputs": 1, "timeout": 0, "noerr": 0,
         "initialize": "", "finalize": "", "libs": [], "wires": [["o"]]},
        {"id": "o", "z": "t", "type": "mqtt out", "topic": "", "qos": "0", "retain": "false", "broker": "b",
         "wires": []},
    ]  # fmt: skip
    (directory / "flows.json").write_text(json.dumps(flow), encoding="utf-8")
    (directory / "settings.js").write_text(
        "module.exports = {flowFile: 'flows.json', uiHost: '127.0.0.1', credentialSecret: false, httpAdminRoot: false,"
        f" uiPort: {free_port()}, logging: {{console: {{level: 'warn', metrics: false, audit: false}}}}}};",
        encoding="utf-8",
    )
    red = installed / "node-red" / "node_modules" / "node-red" / "red.js"
    return Running(["node", str(red), "--userDir", str(directory)], os.environ | {"NODE_ENV": "production"}, directory)
