//! Fails the build where the Kafka client lacks what the configuration offers.
//!
//! librdkafka's own build leaves out what it does not find on the system and says
//! nothing: without libcurl's headers it has no OAuth, which a user would learn from
//! the first token. What it was built with stands in its `config.h`.

use std::{env, fs, path::Path};

/// What is looked for, what it is needed for, and where it comes from.
const NEEDED: [(&str, &str, &str); 4] = [
    ("WITH_SSL", "kafka.tls", "OpenSSL's headers (libssl-dev)"),
    ("WITH_OAUTHBEARER_OIDC", "OAUTHBEARER", "libcurl's headers (libcurl4-openssl-dev)"),
    ("WITH_ZSTD", "zstd compression", "zstd's sources"),
    ("WITH_ZLIB", "gzip compression", "zlib's headers (zlib1g-dev)"),
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Set for direct dependents of rdkafka-sys, and only where it builds librdkafka.
    println!("cargo:rerun-if-env-changed=DEP_RDKAFKA_ROOT");
    let Ok(root) = env::var("DEP_RDKAFKA_ROOT") else { return };
    let config = Path::new(&root).join("config.h");
    // The system's librdkafka, linked dynamically or given as a file, has none.
    let Ok(built_with) = fs::read_to_string(&config) else { return };
    println!("cargo:rerun-if-changed={}", config.display());
    let missing = NEEDED
        .iter()
        .filter(|(name, ..)| !built_with.lines().any(|line| line == format!("#define {name} 1")));
    let missing: Vec<_> = missing.collect();
    for (_, feature, source) in &missing {
        println!("cargo:warning=librdkafka was built without {feature}: it did not find {source}");
    }
    if !missing.is_empty() {
        println!(
            "cargo:warning=install that (`make system` does on Debian), \
             then `cargo clean -p rdkafka-sys`, and build again"
        );
        std::process::exit(1);
    }
}
