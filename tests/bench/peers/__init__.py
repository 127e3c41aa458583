"""What a city would pick instead, each in a process of its own between two sides of a Mosquitto: optional parts.

``python -m tests.bench.peers.setup DIRECTORY`` installs Node-RED (npm) and ThingsBoard IoT Gateway (PyPI) there;
``SENSEGATE_PEERS=DIRECTORY sensegate bench compare`` measures those that are installed.
"""
