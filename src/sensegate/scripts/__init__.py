"""Vendors' codec scripts (LoRa Alliance TS013 and the older forms), run in sandboxed child processes.

`pool.ScriptPool` is what decoding uses: frames in, results or reasons out, within limits. `child` is what runs in a
child process, `engine` one script there, `harness.js` its JavaScript environment, `sandbox` what the child gives up,
`suspensions` which scripts are suspended. The package imports no stage, and little else, so that a child starts fast.
"""
