"""History of readings beyond the retention of the log: Parquet segments, written from the log by a sink of their own.

    log ─▶ `sink` ─▶ segments (`segments`: one file is one contiguous span of the log) ─▶ `query` ─▶ `rest`

The log is the write-ahead log: a segment is complete or it is not there, and where the last one ends is where the sink
continues. pyarrow writes the files, DuckDB reads them; it keeps no database of its own.
"""
