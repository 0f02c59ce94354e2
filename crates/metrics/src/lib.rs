//! fulgurite-metrics
