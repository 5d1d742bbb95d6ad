//! The repository format: keys, packs, maps, manifests, WAL objects, check
