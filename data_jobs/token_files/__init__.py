"""Text that was tokenised elsewhere: Parquet with lists of ids, .npy, Megatron .bin/.idx."""
