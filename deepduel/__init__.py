"""TFRecord shards to trained image classifiers.

shards     one split, opened for reading by record number
order      (seed, epoch, step) -> record numbers
decode     record numbers -> one uint8 batch (decode_row, fitting: one image -> one row; decode_pool,
           decode_worker: processes that do it; batch_buffers: the memory they share)
reading    how a split is read (batch: what a batch is)
pipeline   shards -> tf.data batches (random_reader: batch_plan, batch_groups, sampling, faults,
           pixel_cache; sequential_reader: shard_stream)
augment    uint8 batches -> augmented float batches, on the device (augmentation, draws, warp, mixing, …)
features   what frozen backbones make of each image, kept (feature_store)
models     backbones, heads, saved models (architecture: which)
task       what is learnt for one label axis (objective, optimizers, recipe, averages)
step       what one device computes of a batch, in micro_batches
training   Keras' fit around the step (running_auc)
run        a run: its folder, fit, callbacks (state, tensorboard)
evaluation, metrics, report: what a run's models are worth (calibration, shortcuts,
           robustness, copies, columns, gallery, curves)
compare, compare_page: two runs side by side, from what their evaluations left (evaluated)
sources, predictor, submission: images without labels -> a table
train, evaluate, predict, profile_input: the commands
"""

__version__ = "0.1.0"
