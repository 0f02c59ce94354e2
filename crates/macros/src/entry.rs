//! `#[fulgurite::main]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn};

pub(crate) fn main(arguments: TokenStream, function: TokenStream) -> Result<TokenStream, Error> {
    let function: ItemFn = syn::parse2(function)?;
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "`#[fulgurite::main]` takes no arguments"));
    }
    let signature = &function.sig;
    if signature.ident != "main" || !signature.inputs.is_empty() || signature.asyncness.is_some() {
        return Err(Error::new_spanned(signature, "`#[fulgurite::main]` is for `fn main() -> Result<..>`"));
    }
    Ok(quote! {
        fn main() -> ::std::process::ExitCode {
            #function
            ::fulgurite::exit_code(main())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_for_main_alone() {
        let error = |function| main(TokenStream::new(), function).unwrap_err().to_string();
        let expected = "`#[fulgurite::main]` is for `fn main() -> Result<..>`";
        assert_eq!(
            error(quote!(
                fn train() {}
            )),
            expected
        );
        assert_eq!(
            error(quote!(
                async fn main() {}
            )),
            expected
        );
        let error = main(
            quote!(flavor = "x"),
            quote!(
                fn main() {}
            ),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "`#[fulgurite::main]` takes no arguments");
    }
}
