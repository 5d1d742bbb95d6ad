//! Words of the domain and the spec (lifeboat.yaml)
