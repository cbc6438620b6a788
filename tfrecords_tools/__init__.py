"""Image folders to TFRecord shards. Knows nothing of models.

cli        flags in, exit code out; the errors that a user sees
folder     image folder -> examples (key, path, split, labels)
image      bytes -> checked bytes | Rejected;  bytes -> upright RGB pixels
records    one record, byte by byte
writer     examples -> shards, index and table
manifest   what a data folder holds
convert, verify, inspect: the commands
"""
