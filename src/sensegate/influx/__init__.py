"""InfluxDB 2 line protocol: out, into stores of others, and in, from everything that writes it.

out: share (pages of a feed) ─▶ share.subscriptions (cursor, retries, receipts) ─▶ `transport` ─▶ the store
in:  `write` (POST /api/v2/write) ─▶ decode.formats.influx (which lines are good) ─▶ the HTTP source ─▶ 204
"""
