"""City simulation: centre, nodes, simulated devices, injected faults, and a judge independent of the gateway."""
