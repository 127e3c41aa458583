"""Foundation: the engine (nats-server), connections to it, the log and the streams beside it."""
