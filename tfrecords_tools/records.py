"""One record of a shard, and the table of records beside each shard."""

from tfrecords_tools.format.records import (
    ENCODINGS,
    example_class,
    key_text,
    load_table,
    parse,
    read_keys,
    read_payloads,
    table_dtype,
)

__all__ = [
    "ENCODINGS",
    "example_class",
    "key_text",
    "load_table",
    "parse",
    "read_keys",
    "read_payloads",
    "table_dtype",
]
