"""What a data folder holds: manifest.json."""

from tfrecords_tools.format.manifest import Manifest, Shard, Split, load

__all__ = ["Manifest", "Shard", "Split", "load"]
