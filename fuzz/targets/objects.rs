//! Bodies of objects that anything can stand in.
#![no_main]

use std::sync::LazyLock;

use lifeboat_fuzz::objects::{Keys, read};

static KEYS: LazyLock<Option<Keys>> = LazyLock::new(|| Keys::new().ok());

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let keys = KEYS.as_ref().expect("keys cannot be made");
    read(keys, input);
});
