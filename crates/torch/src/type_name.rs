//! [`short_type_name`] and [`type_name_with_parameters`].

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

/// The name of a type and of its parameters, all without their paths: `a::b::Name<c::D>` is `Name<D>`.
///
/// ```
/// use fulgurite_torch::type_name_with_parameters;
///
/// assert_eq!(type_name_with_parameters::<std::collections::HashMap<u8, Vec<String>>>(), "HashMap<u8, Vec<String>>");
/// ```
pub fn type_name_with_parameters<T: ?Sized>() -> String {
    let full = std::any::type_name::<T>();
    let is_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut short = String::new();
    for part in full.split_inclusive(|c: char| !is_of_path(c)) {
        short += part.rsplit("::").next().unwrap_or(part);
    }
    short
}
