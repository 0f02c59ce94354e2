//! What both derives need to know of a struct or an enum.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Data, DeriveInput, Error, Fields, Ident, Index, LitStr, Member, Path};

/// The type that a trait is derived for.
pub(crate) struct Target {
    /// Where the traits are.
    pub(crate) data: Path,
    pub(crate) name: Ident,
    pub(crate) impl_generics: TokenStream,
    pub(crate) type_generics: TokenStream,
    pub(crate) where_clause: TokenStream,
    /// Those of an enum, or the struct itself.
    pub(crate) variants: Vec<Variant>,
}

/// What can be written as `path { field: ... }`.
pub(crate) struct Variant {
    pub(crate) path: TokenStream,
    pub(crate) fields: Vec<Member>,
}

impl Variant {
    fn new(path: TokenStream, fields: &Fields) -> Variant {
        let fields = match fields {
            Fields::Named(fields) => fields.named.iter().filter_map(|f| f.ident.clone()).map(Member::Named).collect(),
            Fields::Unnamed(fields) => (0..fields.unnamed.len()).map(|at| Member::Unnamed(Index::from(at))).collect(),
            Fields::Unit => Vec::new(),
        };
        Variant { path, fields }
    }

    /// A variable for each field.
    pub(crate) fn bindings(&self) -> Vec<Ident> {
        (0..self.fields.len()).map(|at| quote::format_ident!("field_{at}")).collect()
    }
}

impl Target {
    pub(crate) fn read(mut input: DeriveInput, derive: &str) -> Result<Target, Error> {
        let data = data_path(&input)?;
        let name = &input.ident;
        let variants: Vec<Variant> = match &input.data {
            Data::Struct(body) => vec![Variant::new(quote!(#name), &body.fields)],
            Data::Enum(body) if derive == "Batch" && !body.variants.is_empty() => {
                let path = |variant: &syn::Variant| {
                    let ident = &variant.ident;
                    quote!(#name::#ident)
                };
                body.variants.iter().map(|variant| Variant::new(path(variant), &variant.fields)).collect()
            }
            _ => {
                let message = match derive {
                    "Stack" => "`Stack` can be derived for structs only: items of several variants are no batch",
                    _ => "`Batch` can be derived for structs, and for enums that have variants",
                };
                return Err(Error::new_spanned(name, message));
            }
        };
        let required: Path = match derive {
            "Stack" => syn::parse_quote!(#data::Stack),
            _ => syn::parse_quote!(#data::Batch),
        };
        let stacks_into_itself = derive == "Stack";
        let parameters: Vec<Ident> = input.generics.type_params().map(|p| p.ident.clone()).collect();
        for parameter in parameters {
            let clause = input.generics.make_where_clause();
            clause.predicates.push(if stacks_into_itself {
                syn::parse_quote!(#parameter: #required<Batch = #parameter> + #data::Batch)
            } else {
                syn::parse_quote!(#parameter: #required)
            });
        }
        let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
        Ok(Target {
            data,
            impl_generics: impl_generics.to_token_stream(),
            type_generics: type_generics.to_token_stream(),
            where_clause: where_clause.map_or_else(|| quote!(), ToTokens::to_token_stream),
            name: input.ident.clone(),
            variants,
        })
    }
}

/// The path of `#[batch(crate = "...")]`, or `::fulgurite::data`.
fn data_path(input: &DeriveInput) -> Result<Path, Error> {
    let mut path: Path = syn::parse_quote!(::fulgurite::data);
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("batch")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("unknown option; there is `#[batch(crate = \"path::to::fulgurite_data\")]`"));
            }
            path = meta.value()?.parse::<LitStr>()?.parse()?;
            Ok(())
        })?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn error(input: DeriveInput, derive: &str) -> String {
        Target::read(input, derive).err().unwrap().to_string()
    }

    #[test]
    fn what_cannot_be_derived_is_explained() {
        let either = parse_quote!(
            enum Either {
                A(Tensor),
                B(Tensor),
            }
        );
        let message = "`Stack` can be derived for structs only: items of several variants are no batch";
        assert_eq!(error(either, "Stack"), message);
        let message = "`Batch` can be derived for structs, and for enums that have variants";
        assert_eq!(
            error(
                parse_quote!(
                    enum Never {}
                ),
                "Batch"
            ),
            message
        );
        let message = "unknown option; there is `#[batch(crate = \"path::to::fulgurite_data\")]`";
        assert_eq!(
            error(
                parse_quote!(
                    #[batch(skip)]
                    struct Pair(Tensor, Tensor);
                ),
                "Batch"
            ),
            message
        );
    }

    #[test]
    fn the_traits_are_looked_for_where_asked() {
        let path = |input| Target::read(input, "Batch").unwrap().data.to_token_stream().to_string();
        assert_eq!(
            path(parse_quote!(
                struct One(Tensor);
            )),
            ":: fulgurite :: data"
        );
        assert_eq!(
            path(parse_quote!(
                #[batch(crate = "my::data")]
                struct One(Tensor);
            )),
            "my :: data"
        );
    }
}
