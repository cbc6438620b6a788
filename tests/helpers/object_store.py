"""An object store in memory that counts its requests, answers late, and fails when it is told to."""

import threading
import time
import uuid

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class ObjectStore(MemoryFileSystem):
    """`stored://`. Class attributes, since fsspec makes its instances itself."""

    protocol = "stored"
    store: dict = {}
    pseudo_dirs = [""]
    cachable = False
    delay = 0.0
    requests: list = []
    failures: list = []
    at_once = most_at_once = 0
    _lock = threading.Lock()

    def cat_file(self, path, start=None, end=None, **kwargs):
        with self._lock:
            ObjectStore.requests.append((path, start, end))
            ObjectStore.at_once += 1
            ObjectStore.most_at_once = max(self.most_at_once, self.at_once)
            failure = self.failures.pop() if start is not None and self.failures else None
        try:
            time.sleep(self.delay)
            if failure is not None:
                if callable(failure):
                    failure()
                else:
                    raise failure
            return super().cat_file(path, start=start, end=end, **kwargs)
        finally:
            with self._lock:
                ObjectStore.at_once -= 1

    def info(self, path, **kwargs):
        ObjectStore.requests.append((path, "info", None))
        return super().info(path, **kwargs)

    def ls(self, path, detail=True, **kwargs):
        ObjectStore.requests.append((path, "ls", None))
        return super().ls(path, detail=detail, **kwargs)


def upload(folder) -> str:
    """Copies a folder's files; returns its URL in an empty store."""
    fsspec.register_implementation("stored", ObjectStore, clobber=True)
    ObjectStore.delay, ObjectStore.most_at_once = 0.0, 0
    ObjectStore.store.clear()
    ObjectStore.failures.clear()
    url = f"stored://{uuid.uuid4().hex}"
    for path in folder.iterdir():
        if path.is_file():
            ObjectStore().pipe_file(f"{url}/{path.name}", path.read_bytes())
    ObjectStore.requests.clear()
    return url
