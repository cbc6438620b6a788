"""A folder of shards back to what other tools read: image folders, WebDataset, Parquet."""
