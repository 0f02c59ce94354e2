//! fulgurite
