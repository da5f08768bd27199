"""Settings of a key-value build that is small and has everything: three operators, keys that share values."""

from data_builders.kv.build import KVDataConfig

SMALL = KVDataConfig(
    seed=3,
    num_keys=60,
    num_values=20,
    max_operands=5,
    operators="+-x",
    num_aug_rows=900,
    num_anchor_rows=1200,
    num_composition_rows=600,
    num_test_rows=8,
)
