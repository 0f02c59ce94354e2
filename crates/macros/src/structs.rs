//! What both derives need to know of a struct.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Data, DeriveInput, Error, Fields, Ident, Index, LitStr, Member, Path};

/// The struct that a trait is derived for.
pub(crate) struct Target {
    /// Where the traits are.
    pub(crate) data: Path,
    pub(crate) name: Ident,
    pub(crate) impl_generics: TokenStream,
    pub(crate) type_generics: TokenStream,
    pub(crate) where_clause: TokenStream,
    pub(crate) fields: Vec<Member>,
}

impl Target {
    pub(crate) fn read(mut input: DeriveInput, derive: &str) -> Result<Target, Error> {
        let data = data_path(&input)?;
        let Data::Struct(body) = &input.data else {
            let message = format!("`{derive}` can be derived for structs only; put the enum or union into a struct");
            return Err(Error::new_spanned(&input.ident, message));
        };
        let fields = match &body.fields {
            Fields::Named(fields) => fields.named.iter().filter_map(|f| f.ident.clone()).map(Member::Named).collect(),
            Fields::Unnamed(fields) => (0..fields.unnamed.len()).map(|at| Member::Unnamed(Index::from(at))).collect(),
            Fields::Unit => Vec::new(),
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
            fields,
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

    fn error(input: DeriveInput) -> String {
        Target::read(input, "Batch").err().unwrap().to_string()
    }

    #[test]
    fn what_cannot_be_derived_is_explained() {
        let message = "`Batch` can be derived for structs only; put the enum or union into a struct";
        assert_eq!(
            error(parse_quote!(
                enum Either {
                    A(Tensor),
                    B(Tensor),
                }
            )),
            message
        );
        let message = "unknown option; there is `#[batch(crate = \"path::to::fulgurite_data\")]`";
        assert_eq!(
            error(parse_quote!(
                #[batch(skip)]
                struct Pair(Tensor, Tensor);
            )),
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
