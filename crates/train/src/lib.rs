//! From a recipe to a checkpoint: the trainer, its losses, its logs.
