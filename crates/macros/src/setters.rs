//! `#[derive(ExportSetters)]`: the setters of an options struct, for a builder in another crate.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, GenericArgument, Meta, PathArguments, Type};

/// What `#[setters(...)]` says, of the struct or of a field.
#[derive(Clone, Copy, Default)]
struct Settings {
    strip_option: bool,
    into: bool,
    skip: bool,
}

/// A macro named after the struct, such as `trainer_config_setters!(Builder, field)`.
pub(crate) fn export(input: &DeriveInput) -> Result<TokenStream, Error> {
    let Data::Struct(data) = &input.data else { return Err(not_a_struct(input)) };
    let Fields::Named(fields) = &data.fields else { return Err(not_a_struct(input)) };
    let of_struct = Settings::default().with(&input.attrs)?;
    let name = format_ident!("{}_setters", snake_case(&input.ident));
    let setters = fields.named.iter().map(|field| setter(field, of_struct)).collect::<Result<Vec<_>, _>>()?;
    Ok(quote! {
        #[doc(hidden)]
        #[macro_export]
        macro_rules! #name {
            ($builder:ty, $options:ident) => {
                impl $builder {
                    #(#setters)*
                }
            };
        }
    })
}

fn setter(field: &Field, of_struct: Settings) -> Result<TokenStream, Error> {
    let settings = of_struct.with(&field.attrs)?;
    let Some(name) = field.ident.as_ref().filter(|_| !settings.skip) else { return Ok(TokenStream::new()) };
    let docs = field.attrs.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let stripped = if settings.strip_option { inside_option(&field.ty) } else { None };
    let inner = stripped.unwrap_or(&field.ty);
    let parameter = if settings.into { quote!(impl ::core::convert::Into<#inner>) } else { quote!(#inner) };
    let value = if settings.into { quote!(value.into()) } else { quote!(value) };
    let value = if stripped.is_some() { quote!(::core::option::Option::Some(#value)) } else { value };
    Ok(quote! {
        #(#docs)*
        pub fn #name(mut self, value: #parameter) -> Self {
            self.$options.#name = #value;
            self
        }
    })
}

impl Settings {
    /// What attributes change.
    fn with(mut self, attributes: &[Attribute]) -> Result<Settings, Error> {
        self.into = false;
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("setters")) {
            let Meta::List(list) = &attribute.meta else { continue };
            list.parse_nested_meta(|meta| {
                let is_on = !meta.path.is_ident("strip_option") || !meta.input.peek(syn::Token![=]) || {
                    let value: syn::LitBool = meta.value()?.parse()?;
                    value.value
                };
                if meta.path.is_ident("strip_option") {
                    self.strip_option = is_on;
                } else if meta.path.is_ident("into") {
                    self.into = true;
                } else if meta.path.is_ident("skip") {
                    self.skip = true;
                } else if meta.input.peek(syn::token::Paren) {
                    // What is said to the derive of setters in this crate.
                    meta.parse_nested_meta(|inner| {
                        if inner.input.peek(syn::Token![=]) {
                            inner.value()?.parse::<syn::Expr>()?;
                        }
                        Ok(())
                    })?;
                }
                Ok(())
            })?;
        }
        Ok(self)
    }
}

fn inside_option(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Option")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

fn snake_case(name: &Ident) -> Ident {
    let mut snake = String::new();
    for letter in name.to_string().chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    Ident::new(&snake, Span::call_site())
}

fn not_a_struct(input: &DeriveInput) -> Error {
    Error::new(input.span(), "ExportSetters is for structs with named fields")
}
