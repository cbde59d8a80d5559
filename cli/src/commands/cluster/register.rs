//! `fluence cluster register`: the chain learns of the cluster, by the word of its owner.

use crate::args::ClusterRegister;
use crate::chain;
use crate::error::{Context, Failure, Result};
use crate::home::Home;
use crate::output::Out;
use crate::remote::{self, Remote};
use fluence_bindings::{CommitteeMember, SignaturePoint};
use fluence_crypto::vote::{members_hash, signature_eip2537, vote_key_eip2537};
use fluence_types::block::Member;
use serde_json::json;

pub(crate) async fn run(args: &ClusterRegister, home: &Home, out: &Out) -> Result<()> {
    let remote = Remote::open(home, &args.place, &args.unlock, true).await?;
    let database = remote.database(home, &args.place).await?;
    let session = remote.session();
    let chain = chain::as_owner(&args.chain, home, session.keyring()).await?;
    // The committee of today, not the one that was seen last.
    let statuses = database.cluster_status().await.map_err(|e| remote::failure(e, "cannot ask the members"))?;
    if let Some(why) = remote::no_quorum(&statuses) {
        return Err(Failure::failed(why)
            .help("start the members that are missing: the chain must learn of the committee of today"));
    }
    let committee = database.committee().map_err(|e| remote::failure(e, "the database is not known"))?;
    let members = committee.members.iter().map(as_chain_takes).collect::<Result<Vec<_>>>()?;
    let (owner, db, name) = (session.address(), database.id(), &args.place.db);
    // Who cannot be slashed can still certify: the owner should know whom.
    let mut unbound = Vec::new();
    for (member, (on_chain, _)) in committee.members.iter().zip(&members) {
        let key = chain.vote_key(&member.node).await.doing("the chain does not answer")?;
        if key != Some(alloy::primitives::keccak256(on_chain.key).0) {
            out.warn(format!(
                "node {} has not registered its vote key: it loses nothing when it votes twice",
                member.node
            ));
            unbound.push(member.node);
        }
    }
    let sent = chain.open_cluster(&db, &members).await.map_err(|e| {
        let help = match e.refusal() {
            Some("AlreadyOpen") => {
                "it was registered before: the members post by themselves; `fluence cluster status` shows how far"
            }
            Some(_) => "docs/protocol/checkpoints.md says what each refusal means",
            None => "the owner's account pays for this: does it have ether on this chain?",
        };
        Failure::failed("the cluster was not registered").because(e).help(help)
    })?;
    let hash = members_hash(&committee.members).doing("a member's key is malformed")?;
    let value = json!({
        "db": db, "name": name, "owner": owner, "members": committee.members.iter().map(|m| m.node).collect::<Vec<_>>(),
        "committee": hex::encode(hash), "without_vote_key": unbound, "transaction": sent,
    });
    out.result(&value, |out| {
        out.line(format!(
            "the chain knows database {} by its {} members, since block {}",
            out.bold(name),
            members.len(),
            sent.block
        ));
        out.note("members with `chain.checkpoint_blocks` in their configuration post its certificates");
    });
    Ok(())
}

fn as_chain_takes(member: &Member) -> Result<(CommitteeMember, SignaturePoint)> {
    let malformed = || format!("the key of node {} is malformed", member.node);
    let key = vote_key_eip2537(member).doing(malformed())?;
    let possession = signature_eip2537(&member.possession).doing(malformed())?;
    Ok((CommitteeMember { node: member.node, key }, possession))
}
