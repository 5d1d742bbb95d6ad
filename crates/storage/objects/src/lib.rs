//! Objects that are created once: one store, one key space, no overwrite
