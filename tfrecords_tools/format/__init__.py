"""How records, manifests and folders are laid out, on disk and in object stores."""
