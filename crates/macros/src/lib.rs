//! `#[derive(Batch)]`, `#[derive(Stack)]` and `#[fulgurite::main]` for Fulgurite. Use them through the crates `fulgurite` or
//! `fulgurite-data`, which re-export them.

mod entry;
mod setters;
mod structs;

use proc_macro::TokenStream;
use quote::quote;
use syn::{DeriveInput, parse_macro_input};

use crate::structs::{Target, Variant};

/// Exports the setters of a struct of options as a macro, for a builder in another crate that holds the options in a field:
/// `trainer_config_setters!(TrainerBuilder, config);` of a `TrainerConfig`. It obeys `strip_option`, `into` and `skip` of
/// `#[setters(...)]`. The types of the fields must be in scope where the macro is called.
#[proc_macro_derive(ExportSetters, attributes(setters))]
pub fn derive_export_setters(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    setters::export(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Ends a program as its run ended: a `main` that returns an error prints it in one readable line, and exits with code 1, or with
/// that of the signal that ended the run (130 after Ctrl-C, 143 after SIGTERM). See `fulgurite::exit_code`.
///
/// ```ignore
/// #[fulgurite::main]
/// fn main() -> Result<()> {
///     trainer.fit(&mut model, &mut data)?.completed()?;
///     trainer.test(&mut model, &mut data)?;
///     Ok(())
/// }
/// ```
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, function: TokenStream) -> TokenStream {
    entry::main(arguments.into(), function.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a struct or an enum of batches a batch: every field is walked in order.
///
/// The trait is looked for in `::fulgurite::data`; a crate that depends on `fulgurite-data` alone says
/// `#[batch(crate = "fulgurite_data")]`.
#[proc_macro_derive(Batch, attributes(batch))]
pub fn derive_batch(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input as DeriveInput), "Batch", |target| {
        let Target { data, name, impl_generics, type_generics, where_clause, variants } = target;
        let arms = variants.iter().map(|variant| {
            let (Variant { path, fields }, bindings) = (variant, variant.bindings());
            let mapped = quote!(#path { #(#fields: #data::Batch::map_tensors(#bindings, f)),* });
            let size = quote!(::core::option::Option::None #(.or_else(|| #data::Batch::size(#bindings)))*);
            let pattern = quote!(#path { #(#fields: #bindings),* });
            (quote!(#pattern => #mapped), quote!(#pattern => #size))
        });
        let (mapped, sizes): (Vec<_>, Vec<_>) = arms.unzip();
        quote! {
            #[automatically_derived]
            impl #impl_generics #data::Batch for #name #type_generics #where_clause {
                fn map_tensors(
                    &self,
                    f: &mut dyn FnMut(&#data::torch::tch::Tensor) -> #data::torch::tch::Tensor,
                ) -> Self {
                    match self { #(#mapped),* }
                }

                fn size(&self) -> ::core::option::Option<i64> {
                    match self { #(#sizes),* }
                }
            }
        }
    })
}

/// Makes a struct an item that the default collate can put together, field by field. A batch of such items is the
/// same struct, so its fields must be of types that stack into themselves: tensors, and what is made of tensors.
///
/// The struct needs `#[derive(Batch)]` as well, and takes the same `#[batch(crate = "...")]`.
#[proc_macro_derive(Stack, attributes(batch))]
pub fn derive_stack(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input as DeriveInput), "Stack", |target| {
        let Target { data, name, impl_generics, type_generics, where_clause, variants } = target;
        let fields: Vec<_> = variants.into_iter().flat_map(|only| only.fields).collect();
        let columns: Vec<_> = (0..fields.len()).map(|at| quote::format_ident!("column_{at}")).collect();
        quote! {
            #[automatically_derived]
            impl #impl_generics #data::Stack for #name #type_generics #where_clause {
                type Batch = Self;

                fn stack(items: ::std::vec::Vec<Self>) -> ::core::result::Result<Self, #data::BoxError> {
                    #(let mut #columns = ::std::vec::Vec::with_capacity(items.len());)*
                    for item in items {
                        #(#columns.push(item.#fields);)*
                    }
                    ::core::result::Result::Ok(#name { #(#fields: #data::Stack::stack(#columns)?),* })
                }
            }
        }
    })
}

fn expand(input: DeriveInput, derive: &str, generate: impl FnOnce(Target) -> proc_macro2::TokenStream) -> TokenStream {
    Target::read(input, derive).map(generate).unwrap_or_else(syn::Error::into_compile_error).into()
}
