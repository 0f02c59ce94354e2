//! [`short_type_name`].

/// The name of a type without its path and its parameters: `a::b::Name<c::D>` is `Name`.
///
/// ```
/// assert_eq!(fulgurite_torch::short_type_name::<std::collections::HashMap<u8, String>>(), "HashMap");
/// ```
pub fn short_type_name<T: ?Sized>() -> &'static str {
    let full = std::any::type_name::<T>();
    let path = full.split('<').next().unwrap_or(full);
    path.rsplit("::").next().unwrap_or(path)
}
