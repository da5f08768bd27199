"""What reads and writes files, for modules that still know it by this name."""

from data_builders.files import (
    read_text,
    sha256_of,
    share_as_umask_says,
    sync_folder,
    sync_tree,
    write_bytes,
    write_text,
)
from data_builders.rows import append_jsonl, read_jsonl
from data_builders.values import read_json, read_yaml, write_json

__all__ = ["append_jsonl", "read_json", "read_jsonl", "read_text", "read_yaml", "sha256_of", "share_as_umask_says"]
__all__ += ["sync_folder", "sync_tree", "write_bytes", "write_json", "write_text"]
