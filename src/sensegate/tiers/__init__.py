"""The border between a node (the gateway of a city) and its centre (that of the province).

How a span of readings comes from the node's log to the centre's, file by file:

    node    `writers`      the process claims its member's lanes; a copy of the store is refused
            `uplink`       reads the log in two lanes: live, and the backlog of what waited while the link was down
            `span`         packs entries into the parts of one span: rows by grade, the ledger, sequence numbers
            `exchange`     sends the span, and asks where the lanes stand after any doubt
    link    `protocol`     the bodies of requests and answers
            `envelope`     what every request and answer carries: protocol version and term
            `link`         the transport: a restricted account (slot) per member, credit and quota per channel
    centre  `receiver`     takes the span: fence, checks, one atomic write with the lane records, then the answer
            `judging`      checks the parts of a span (`checks`, `verdict`), and counts what is accepted and refused
            `refusals`     the list of refused parts, which the node can send again; bodies in `refused_store`
            `lanes`        how a span and a claim change the lane records
    node    `uplink_accounting`  writes what the centre confirmed into the node's own ledger

Beside that way: membership (`members` at the centre, `membership` and `route` at the node), ownership and moves of
devices (`ownership`, `move_register`, `device_moves`), configuration that the centre distributes
(`config_distribution`), copies of the nodes' registries (`registry_copies`), reports (`report`, `node_states`, `gaps`),
the return flow (`return_flow`, `return_receiver`, `return_files`), and the REST routes (`rest_*`). `node_side` and
`centre_side` put the parts together.
"""
