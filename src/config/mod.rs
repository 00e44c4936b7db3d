//! The settings: the YAML model, its checks, secrets.

pub mod settings;
