//! `fluence init`: a home, ready for the first import. Run again, it changes only what its flags name.

use super::keys;
use crate::args::Init;
use crate::error::{Failure, Result};
use crate::home::{Chain, Home};
use crate::output::Out;
use fluence_types::Address;
use serde_json::json;
use std::io::IsTerminal;

pub(crate) fn run(args: &Init, home: &Home, out: &Out) -> Result<()> {
    for node in &args.place.node {
        crate::remote::check_address(node)?;
    }
    if let Some(contract) = &args.contract
        && contract.parse::<Address>().is_err()
    {
        return Err(
            Failure::usage(format!("{contract:?} is not an address")).help("an address is 0x and 40 hex digits")
        );
    }
    let new = home.create()?;
    let mut config = home.config()?;
    if !args.place.node.is_empty() {
        config.databases.entry(args.place.db.clone()).or_default().nodes = args.place.node.clone();
    }
    if args.rpc.is_some() || args.contract.is_some() || args.deployment.is_some() {
        let chain = config.chain.get_or_insert_with(Chain::default);
        chain.rpc = args.rpc.clone().or(chain.rpc.take());
        chain.contract = args.contract.clone().or(chain.contract.take());
        chain.deployment = args.deployment.clone().or(chain.deployment.take());
    }
    home.save(&config)?;

    let mut keystore = home.keystore().exists();
    let can_ask = args.unlock.passphrase_file.is_some() || std::io::stdin().is_terminal();
    let mut owner = None;
    if !keystore && !args.no_keystore && can_ask {
        owner = Some(keys::create(home, &args.unlock)?.keyring().address());
        keystore = true;
    }
    let value = json!({ "home": home.dir(), "new": new, "keystore": keystore, "owner": owner, "config": config });
    out.result(&value, |out| {
        out.line(format!("home      {}{}", home.dir().display(), if new { "" } else { " (was there)" }));
        match (&owner, keystore) {
            (Some(owner), _) => out.line(format!("owner     {owner}")),
            (None, true) => out.line("keystore  is there"),
            (None, false) => out.line("keystore  none yet: `fluence keys new`, or `fluence keys restore`"),
        }
        if owner.is_some() {
            out.note("now: `fluence keys backup`, and keep the phrase away from this machine");
        }
        for (name, database) in &config.databases {
            let nodes =
                if database.nodes.is_empty() { "no node yet (--node ADDR)" } else { &database.nodes.join(", ") };
            out.line(format!("database  {name} at {nodes}"));
        }
    });
    Ok(())
}
