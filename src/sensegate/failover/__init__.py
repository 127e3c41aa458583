"""Fail-over between two centres of one province: one is active, the other stands by with a complete copy.

    `lease`           which centre is active: the leader lease, voters and their configuration (pure)
    `terms`           terms on the disk of each gateway, and a node's choice of the centre that it follows
    `active`          the active centre: holds the lease, answers nodes and standby, holds back unreplicated delivery
    `standby`         the standby: copies, and takes over by order or by a majority of the nodes
    `replica`         replication of the log, entry for entry; only replicated entries are delivered
    `trail_copy`      replication of the audit trail
    `ledger_copy`     replication of the hourly sums
    `standby_status`  files between the standby and the command line

A reading that came up is thus acknowledged once it is on the active centre's log, delivered once the standby has it,
and survives the loss of either centre. How it comes up from the nodes: `sensegate.tiers`.
"""
