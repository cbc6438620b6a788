"""Sources of images other than folders: archives, WebDataset, Parquet, TensorFlow Datasets."""
