//! fulgurite-data
