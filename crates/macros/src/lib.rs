//! fulgurite-macros
