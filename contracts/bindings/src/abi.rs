//! What `sol!` makes of the committed artifacts. Thin enough that nothing is documented here: see the Solidity interfaces.
#![allow(
    missing_docs,
    clippy::too_many_arguments,
    clippy::enum_variant_names,
    clippy::pub_underscore_fields,
    unreachable_pub
)]

/// One module a contract, since each artifact brings the interfaces it names.
macro_rules! contract {
    ($module:ident, $name:ident, $path:literal) => {
        pub mod $module {
            alloy::sol!(
                #[sol(rpc)]
                #[derive(Debug)]
                $name,
                $path
            );
        }
        pub use $module::$name;
    };
}

contract!(token, FluToken, "../artifacts/FluToken.json");
contract!(verifier, Groth16Verifier, "../artifacts/Groth16Verifier.json");
contract!(registry, NodeRegistry, "../artifacts/NodeRegistry.json");
contract!(collateral, Collateral, "../artifacts/Collateral.json");
contract!(holdings, Holdings, "../artifacts/Holdings.json");
contract!(epoch_proofs, EpochProofs, "../artifacts/EpochProofs.json");
contract!(checkpoints, Checkpoints, "../artifacts/Checkpoints.json");
contract!(placement, Placement, "../artifacts/Placement.json");
contract!(equivocation, Equivocation, "../artifacts/Equivocation.json");
pub use epoch_proofs::IEpochProofs;
