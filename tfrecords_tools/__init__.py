"""Image folders to TFRecord shards. Knows nothing of models.

cli        flags in, exit code out; the errors that a user sees
layout     which part of a path says what
folder     image folder -> listing (keys, sizes, splits, labels)
metadata   metadata.csv, checked against the folders
image      bytes -> checked bytes | Rejected;  bytes -> upright RGB pixels
planning   listing -> which image goes into which shard
shard      one shard, from its images to its files
workers    several processes at one list of jobs
writer     plan -> whole data folder
records    one record, byte by byte
manifest   what a data folder holds
audit      whether a data folder is what its manifest says
contents   images by cell, contact sheets
duplicates, splitting: which images are the same; splits by content
storage, remote, beam: folders here and in object stores; other machines
mending    damaged shards rebuilt, new images appended
convert, verify, inspect: the commands
"""
