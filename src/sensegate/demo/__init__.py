"""A city in a box: centre, nodes, simulated devices, injected faults, and a judge that knows nothing of the gateway."""
