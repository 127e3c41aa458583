"""Two centres of one province: the lease of the active one, the standby, and what is copied to it."""
